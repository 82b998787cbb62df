"""Feast: get_historical_features of ready-made values: as many value rows as a spine has, 12 of each of three entities."""

import json
import os
import resource
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

SCRATCH = Path(os.environ["PEER_SCRATCH"])
ENTITIES = ("card", "terminal", "merchant")
repo = SCRATCH / "feast"
repo.mkdir(exist_ok=True)
(repo / "feature_store.yaml").write_text(
    "project: contest\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
    "online_store:\n  type: sqlite\n  path: online.db\noffline_store:\n  type: dask\n"
)
spine = pd.read_parquet(SCRATCH / "rows.parquet")
spine["event_timestamp"] = pd.to_datetime(spine.pop("at"), unit="us", utc=True)
events = pd.read_parquet(SCRATCH / "events.parquet").head(len(spine))
store = FeatureStore(str(repo))
declared, features = [], []
for name in ENTITIES:
    values = pd.DataFrame({name: events[name], "event_timestamp": pd.to_datetime(events["at"], unit="us", utc=True)})
    for i in range(12):
        values[f"{name}_v{i}"] = events["amount"] + i
        features.append(f"{name}_view:{name}_v{i}")
    values.to_parquet(repo / f"{name}.parquet")
    source = FileSource(name=f"{name}_source", path=str(repo / f"{name}.parquet"), timestamp_field="event_timestamp")
    entity = Entity(name=name, join_keys=[name], value_type=ValueType.INT64)
    fields = [Field(name=f"{name}_v{i}", dtype=Float64) for i in range(12)]
    declared += [
        entity,
        FeatureView(name=f"{name}_view", entities=[entity], ttl=timedelta(0), schema=fields, source=source),
    ]
store.apply(declared)
del events, values
began = time.perf_counter()
found = store.get_historical_features(entity_df=spine, features=features).to_df()
seconds = time.perf_counter() - began
# Its dask store keeps one of the rows that share an entity and a moment, although they differ in the other entities.
missing = len(spine) - len(found)
assert 0 <= missing < len(spine) // 100, (len(found), len(spine), np.shape(found))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "peak_mb": peak, "loaded_mb": 0, "sums": {}, "missing": missing}))
