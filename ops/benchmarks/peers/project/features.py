"""What Headrace runs beside its peers: one view of the payments, four windows × four aggregations."""

from __future__ import annotations

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

WINDOWS = ("10m", "1h", "24h", "7d")

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
