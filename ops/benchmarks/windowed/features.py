"""One view of the payments with as many windows as BENCH_WINDOWS says, the longest always seven days."""

from __future__ import annotations

import os

import headrace as hr

payments = hr.Event(
    "payments",
    time="paid_at",
    fields={
        "card": hr.string(),
        "merchant": hr.string(),
        "device": hr.string(),
        "paid_at": hr.timestamp(),
        "amount": hr.float64(ge=0, quantum="0.01"),
    },
    future_tolerance=None,  # its times are made up
)

# In this order, so that a view with more windows has those of one with fewer.
ORDER = (
    "7d", "10m", "1h", "24h", "30m", "2h", "3h", "6h", "12h", "48h",
    "20m", "40m", "90m", "4h", "8h", "18h", "36h", "3d", "4d", "5d",
)  # fmt: skip
WINDOWS = ORDER[: int(os.environ.get("BENCH_WINDOWS", "20"))]

card_payments = hr.FeatureView(
    "card_payments",
    entity=hr.Entity("card", keys={"card": hr.string()}),
    event=payments,
    dedupe=0,
    features={
        "n": hr.count().over(*WINDOWS),
        "total": hr.sum("amount").over(*WINDOWS),
        "least": hr.min("amount").over(*WINDOWS),
        "most": hr.max("amount").over(*WINDOWS),
    },
)
