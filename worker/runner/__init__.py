"""The loops, and the only place that knows of tasks and the event loop: the labeller's, the detector's, shutdown."""
