"""The Kafka edge: with worker.kip447 the only importer of aiokafka. Values in and out; errors as worker.errors."""
