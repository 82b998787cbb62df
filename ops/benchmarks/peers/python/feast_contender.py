"""Feast: declares views of the same shape, writes a row for every entity, and serves them.

feast_contender.py fill       definitions applied, rows written to Redis; prints the bytes that they take there
feast serve                   (run by the benchmark in the repository that `fill` made)
"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

REPO = Path(os.environ["PEER_SCRATCH"])
REDIS = f"{os.environ['PEER_REDIS_HOST']}:{os.environ['PEER_REDIS_PORT']}"
ENTITIES = int(os.environ["PEER_ENTITIES"])
VIEWS = {"cards": ("card", 12), "merchants": ("merchant", 12), "devices": ("device", 12), "wide": ("card", 50)}
NOW = pd.Timestamp("2026-01-01", tz="UTC")


def rows(name):
    key, columns = VIEWS[name]
    rng = np.random.default_rng(1)
    ids = np.arange(ENTITIES)
    frame = {key: ids if key == "card" else [f"{key[0]}{i}" for i in ids], "event_timestamp": NOW}
    return pd.DataFrame(frame | {f"{name}_f{i}": rng.normal(size=ENTITIES) for i in range(columns)})


def main():
    (REPO / "feature_store.yaml").write_text(
        "project: contest\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f'online_store:\n  type: redis\n  connection_string: "{REDIS}"\noffline_store:\n  type: file\n'
    )
    store = FeatureStore(str(REPO))
    entities = {
        key: Entity(name=key, join_keys=[key], value_type=ValueType.INT64 if key == "card" else ValueType.STRING)
        for key in ("card", "merchant", "device")
    }
    declared = []
    for name, (key, columns) in VIEWS.items():
        file = REPO / f"{name}.parquet"
        rows(name).head(10).to_parquet(file)
        source = FileSource(name=f"{name}_source", path=str(file), timestamp_field="event_timestamp")
        fields = [Field(name=f"{name}_f{i}", dtype=Float64) for i in range(columns)]
        declared.append(
            FeatureView(
                name=name, entities=[entities[key]], ttl=timedelta(0), schema=fields, online=True, source=source
            )
        )
    store.apply([*entities.values(), *declared])
    client = redis.Redis.from_url(f"redis://{REDIS}")
    sizes = {}
    for name in VIEWS:
        before = client.info("memory")["used_memory"]
        store.write_to_online_store(name, rows(name))
        sizes[name] = (client.info("memory")["used_memory"] - before) / ENTITIES
    print(json.dumps({"bytes_per_entity": sizes}))


if __name__ == "__main__" and sys.argv[1:] == ["fill"]:
    main()
