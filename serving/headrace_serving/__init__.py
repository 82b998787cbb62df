"""Inference pipelines: a request, its features and a model's answer, logged."""
