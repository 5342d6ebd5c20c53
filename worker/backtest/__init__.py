"""Old news through the labeller's and the detector's own code, without Kafka; what fired, and why."""
