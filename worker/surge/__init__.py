"""The surge detector: pure decisions on keys, copies, statistics, baselines and the lifecycle of alerts."""
