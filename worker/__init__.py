"""The streaming service: text in on Kafka, labels and alerts out."""
