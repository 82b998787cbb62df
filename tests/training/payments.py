"""A project of generated payments, its logs, and a small stream and service over it, made of the real parts.

Cards pay merchants; some payments are charged back. Arrivals are late, duplicated and out of order, over several partitions.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

import headrace as hr
from headrace import kernel
from headrace.assembly import assemble, lookup_columns, request_reader
from headrace.layout import Layout
from headrace_schemas.codecs import EventCodec, RawBatch, frame_columns
from headrace_schemas.keys import encode_key, encode_keys
from headrace_schemas.loading import LoadedProject
from headrace_schemas.predictions import LookupRecord, PredictionCodec, PredictionRecord
from headrace_schemas.settings import Settings
from headrace_schemas.stores.log import event_log, prediction_log

START_US = 1_735_689_600_000_000
MINUTE = 60_000_000

payments = hr.Event(
    "payments",
    fields={
        "payment_id": hr.string(),
        "at": hr.timestamp(),
        "card": hr.string(),
        "merchant": hr.int64(),
        "amount": hr.float64(quantum="0.01"),
        "tip": hr.float64(nullable=True),
        "channel": hr.string(nullable=True),
    },
    time="at",
    id="payment_id",
    future_tolerance=None,
)
chargebacks = hr.Event(
    "chargebacks",
    fields={"payment_id": hr.string(), "at": hr.timestamp(), "lost": hr.float64(nullable=True)},
    time="at",
    id="payment_id",
    future_tolerance=None,
)
card = hr.Entity("card", keys={"card": hr.string()})
merchant = hr.Entity("merchant", keys={"merchant": hr.int64()})
pair = hr.Entity("pair", keys={"card": hr.string(), "merchant": hr.int64()})

card_spending = hr.FeatureView(
    "card_spending",
    entity=card,
    event=payments,
    features={
        "n": hr.count().over("10m", "2h"),
        "spent": hr.sum("amount").over("10m", "2h"),
        "usual": hr.mean("amount").over("2h"),
        "spread": hr.std("amount").over("2h"),
        "online": hr.count(where=hr.col("channel") == "online").over("2h"),
        "last": hr.last("amount").over("2h"),
        "tips": hr.mean("tip").lifetime(),
        "since": hr.time_since_last().lifetime(),
        "share": hr.sum("amount").over("10m") / hr.sum("amount").over("2h"),
    },
)
merchant_traffic = hr.FeatureView(
    "merchant_traffic",
    entity=merchant,
    event=payments,
    where=hr.col("amount") > 5,
    features={
        "n": hr.count().over("30m"),
        "top": hr.max("amount").over("30m"),
        "first": hr.first("amount").over("30m"),
    },
)
pair_history = hr.FeatureView(
    "pair_history",
    entity=pair,
    event=payments,
    features={"n": hr.count().lifetime(), "low": hr.min("amount").lifetime()},
)


@hr.on_demand(inputs={"amount": payments["amount"], "usual": card_spending.lookup()["usual_2h"]})
def against_usual(amount, usual):
    """How far the payment is from the card's usual amount."""
    return hr.log(amount + 1.0) - hr.log(usual + 1.0)


charged_back = hr.Label(
    "charged_back",
    chargebacks,
    join={"payment_id": "payment_id"},
    value=hr.col("lost") > 0,
    horizon="1h",
    missing=0.0,
)


def make_estimator():
    text = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    return make_pipeline(
        ColumnTransformer([("text", text, ["channel"])], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=15, min_samples_leaf=5, random_state=0),
    )


fraud = hr.Model(
    "fraud",
    request=payments,
    features=[
        payments["amount"],
        payments["channel"],
        card_spending,
        merchant_traffic.lookup("n_30m", "first_30m"),
        pair_history,
        against_usual,
    ],
    label=charged_back,
    estimator=make_estimator,
    task="binary",
    fold_request=True,
)
VIEWS = (card_spending, merchant_traffic, pair_history)
PROJECT = hr.Project(
    "payments",
    events=(payments, chargebacks),
    entities=(card, merchant, pair),
    views=VIEWS,
    labels=(charged_back,),
    models=(fraud,),
)


def project(path: Path) -> LoadedProject:
    """The project with its logs and registry below a directory."""
    settings = Settings(
        name="payments", definitions="features.py", kafka="localhost:1", redis="redis://localhost:1", log_path=path / "log",
        registry_path=path / "registry", run_path=path / "run", namespace="payments", host="127.0.0.1", port=1, workers=1,
        wedged_s=30,
        metrics_host="127.0.0.1",
        metrics_port=0,
        cache_kb=1024,
    )  # fmt: skip
    return LoadedProject(PROJECT, settings, path)


@dataclass
class World:
    """What happened: payments and chargebacks, each in order of arrival with partition and offset."""

    payments: list[dict[str, Any]]
    chargebacks: list[dict[str, Any]]


def generate(seed: int, count: int, *, partitions: int = 3, late: float = 0.1, repeated: float = 0.05, cards: int = 8):
    """Payments over about five hours; some arrive up to twenty minutes late, some twice."""
    r = np.random.default_rng(seed)
    times = np.sort(r.integers(0, 300 * MINUTE, count)) // 1000 * 1000
    made = [
        {
            "payment_id": f"p{i}",
            "at": START_US + int(t),
            "card": f"c{int(r.zipf(1.5)) % cards}",
            "merchant": int(r.integers(0, 5)),
            "amount": float(np.round(r.gamma(2, 20), 2)),
            "tip": None if r.random() < 0.5 else float(np.round(r.random() * 5, 6)),
            "channel": [None, "online", "shop"][int(r.integers(0, 3))],
        }
        for i, t in enumerate(times)
    ]
    arrivals = [
        (p["at"] + (int(r.integers(1, 20 * MINUTE)) if r.random() < late else 0), i) for i, p in enumerate(made)
    ]
    arrivals += [(at + int(r.integers(0, 3 * MINUTE)), i) for at, i in arrivals if r.random() < repeated]
    placed = _placed(r, [made[i] for _, i in sorted(arrivals)], partitions)
    risky = [p for p in made if r.random() < 0.1 + 0.3 * (p["amount"] > 60)]
    lost = [
        {
            "payment_id": p["payment_id"],
            "at": p["at"] + int(r.integers(1, 80 * MINUTE)),
            "lost": None if r.random() < 0.1 else float(p["amount"]),
        }
        for p in risky
    ]
    closing = {"payment_id": "none", "at": START_US + 240 * MINUTE, "lost": 0.0}
    kept = [c for c in sorted(lost, key=lambda c: c["at"]) if c["at"] < closing["at"]]
    return World(placed, _placed(r, [*kept, closing], partitions))


def _placed(r, records, partitions):
    """One partition per card would be usual; here any record may lie in any partition."""
    following = [0] * partitions
    placed = []
    for record in records:
        p = int(r.integers(0, partitions))
        following[p] += int(r.integers(1, 3))
        placed.append({**record, "_partition": p, "_offset": following[p]})
    return placed


def frame_of(event: hr.Event, records: list[dict[str, Any]]):
    """Records as the log writer gets them: encoded, decoded, judged."""
    codec = EventCodec(event, VIEWS)
    raw = RawBatch(
        topic=event.topic,
        partition=np.array([r["_partition"] for r in records], np.int32),
        offset=np.array([r["_offset"] for r in records], np.int64),
        timestamp_us=np.arange(len(records), dtype=np.int64),
        timestamp_type=np.zeros(len(records), np.uint8),
        received_us=START_US,
        keys=[None] * len(records),
        values=[codec.encode({k: v for k, v in r.items() if not k.startswith("_")}) for r in records],
    )
    decoded = codec.decode(raw)
    assert not decoded.rejects
    return decoded.frame


def ranges(frame, start=None):
    """The progress of an append: per partition from the last one's end to behind its last offset."""
    start = start or {}
    ends = {p: int(frame.filter(frame["_partition"] == p)["_offset"].max()) + 1 for p in frame["_partition"].unique()}
    return {p: (start.get(p, 0), end) for p, end in ends.items()}


def write_logs(loaded: LoadedProject, world: World, appends: int = 3) -> None:
    """Append the events to their logs, in several commits."""
    for event, records in ((payments, world.payments), (chargebacks, world.chargebacks)):
        log = event_log(loaded.settings, event, topic_id=f"id-{event.name}")
        known: dict[int, int] = {}
        for part in np.array_split(np.arange(len(records)), appends):
            if len(part):
                frame = frame_of(event, [records[i] for i in part])
                progress = ranges(frame, known)
                log.append(frame, progress)
                known |= {p: upto for p, (_, upto) in progress.items()}


@dataclass
class Serving:
    """A stream and a service in miniature: states by key, folded in order of arrival, read between arrivals."""

    bundle: str = "000000000000"
    score: Any = None
    states: dict[str, dict[bytes, bytes]] = field(default_factory=lambda: {view.name: {} for view in VIEWS})
    records: list[PredictionRecord] = field(default_factory=list)

    def fold(self, arrivals: list[dict[str, Any]]) -> None:
        frame = frame_of(payments, arrivals)
        for view in VIEWS:
            data, offsets = encode_keys(frame, view.key_fields)
            keys = [bytes(data[a:b]) for a, b in itertools.pairwise(offsets)]
            distinct = list(dict.fromkeys(keys))
            held = self.states[view.name]
            layout = Layout.of(view)
            batch = kernel.prepare(
                layout, frame_columns(frame, payments, view.columns), partition=frame["_partition"].to_numpy(),
                offset=frame["_offset"].to_numpy(), id_hash=frame["_id_hash"].to_numpy(),
            )  # fmt: skip
            updated = kernel.update(
                layout, kernel.States.from_list([held.get(key) for key in distinct]), batch,
                np.array([distinct.index(key) for key in keys], np.int32),
            )  # fmt: skip
            held |= {key: bytes(updated.states[i]) for i, key in enumerate(distinct) if len(updated.states[i])}

    def ask(self, rows: list[dict[str, Any]], batch_id: str, *, lost: bool = False) -> None:
        """Predict some requests at once, as serving does, and log the answers."""
        reader = request_reader(payments, fraud.request_fields)
        asked = reader.records([{k: v for k, v in row.items() if not k.startswith("_")} for row in rows])
        columns = reader.columns(asked)
        at_us = np.array([record["at"] for record in asked], np.int64)
        hashes = np.array([kernel.hash_bytes(record["payment_id"].encode()) for record in asked], np.uint64)
        features, looked = [], []
        for i, lookup in enumerate(fraud.lookups):
            layout = Layout.of(lookup.view)
            keys = [encode_key([record[f] for f in lookup.key_fields]) for record in asked]
            states = [None if lost else self.states[lookup.view.name].get(key) for key in keys]
            zeros = np.zeros(len(asked), np.int64)
            own = kernel.prepare(layout, columns, partition=zeros.astype(np.int32), offset=zeros, id_hash=hashes)
            values = kernel.read(layout, kernel.States.from_list(states), at_us, own if fraud.folded[i] else None)
            features.append(np.ascontiguousarray(values[:, lookup_columns(fraud, i)]))
            looked.append(
                [self._lookup(lookup, key, state, at) for key, state, at in zip(keys, states, at_us, strict=True)]
            )
        assembled = assemble(fraud, columns, features)
        output = (
            np.full(len(asked), 0.5) if self.score is None else self.score(assembled.numeric, assembled.categorical)
        )
        for row, record in enumerate(asked):
            self.records.append(
                PredictionRecord(
                    prediction_id=f"{batch_id}-{row}",
                    model="fraud",
                    bundle=self.bundle,
                    at_us=int(at_us[row]),
                    served_us=int(at_us[row]),
                    batch_id=batch_id,
                    row=row,
                    batch_size=len(asked),
                    request=json.dumps(record, sort_keys=True).encode(),
                    lookups=tuple(each[row] for each in looked),
                    features=b"".join(block[row].astype("<f8").tobytes() for block in features),
                    transforms=assembled.transforms[row].astype("<f8").tobytes(),
                    output=np.array([output[row]], "<f8").tobytes(),
                    defaulted=lost,
                )
            )

    def _lookup(self, lookup, key, state, at_us):
        header = None if state is None else kernel.header(state)
        return LookupRecord(
            alias=lookup.alias, view=lookup.view.name, layout=lookup.view.layout_fingerprint, key=key,
            found=header is not None, newest_us=0 if header is None else header.newest_us or 0,
            offsets=() if header is None else tuple(header.offsets),
            ahead=header is not None and (header.newest_us or 0) >= at_us, own=True,
        )  # fmt: skip


def play(world: World, serving: Serving, *, seed: int = 0, ask: float = 0.5) -> None:
    """Arrivals in small batches; before each batch some of its payments ask for a prediction, some of them after it."""
    r = np.random.default_rng(seed)
    at = number = 0
    asked: set[str] = set()
    while at < len(world.payments):
        size = int(r.integers(1, 12))
        batch = world.payments[at : at + size]
        early = [p for p in batch if r.random() < ask and p["payment_id"] not in asked]
        asked |= {p["payment_id"] for p in early}
        early = list({p["payment_id"]: p for p in early}.values())
        tail = [early.pop()] if early and r.random() < 0.3 else []
        if early:
            serving.ask(early, f"b{number}", lost=r.random() < 0.05)
        serving.fold(batch)
        if tail:
            serving.ask(tail, f"t{number}")  # its own event has come through the stream already
        at, number = at + size, number + 1


def log_predictions(loaded: LoadedProject, records: list[PredictionRecord]) -> None:
    """Write records to the prediction log, through their codec."""
    codec = PredictionCodec()
    raw = RawBatch(
        topic="payments.predictions",
        partition=np.zeros(len(records), np.int32),
        offset=np.arange(len(records), dtype=np.int64),
        timestamp_us=np.zeros(len(records), np.int64),
        timestamp_type=np.zeros(len(records), np.uint8),
        received_us=START_US,
        keys=[None] * len(records),
        values=[codec.encode(record) for record in records],
    )
    decoded = codec.decode_batch(raw)
    assert not decoded.rejects
    prediction_log(loaded.settings, topic_id="id-predictions").append(decoded.frame, {0: (0, len(records))})


def tampered(record: PredictionRecord, *, feature: int) -> PredictionRecord:
    """One served feature with its last bit turned."""
    data = bytearray(record.features)
    data[8 * feature] ^= 1
    return replace(record, features=bytes(data))
