"""The services that the service depends on, at its start: asked for patiently, then named in the error."""

from __future__ import annotations

from headrace_schemas.predictions import prediction_topic
from headrace_schemas.settings import Settings
from headrace_schemas.stores.kafka import ensure_topics
from headrace_schemas.stores.online import connect

START_PATIENCE_S = 20.0
# Predictions of one entity need no order, so the partitions only spread the load.
_PREDICTION_PARTITIONS = 4


def await_stores(settings: Settings, patience_s: float = START_PATIENCE_S) -> None:
    """Wait until Redis and Kafka answer, and make the prediction log's topic.

    Args:
        settings: where they are.
        patience_s: how long each is waited for.

    Raises:
        ServiceUnavailable: one does not answer in time; the message names it and its address.
    """
    connect(settings.redis, patience_s=patience_s).close()
    topic = prediction_topic(settings.namespace)
    ensure_topics(settings.kafka, {topic: _PREDICTION_PARTITIONS}, patience_s=patience_s)
