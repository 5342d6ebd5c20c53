"""Surge detection: pure functions and values; no Kafka, no wall clock, no randomness."""
