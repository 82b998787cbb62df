"""Training pipelines: point-in-time datasets from the log, models, and the registry that holds them."""
