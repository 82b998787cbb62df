"""Feature pipelines: Kafka events into windowed features in the online store, and into the log."""
