"""What the stream benchmark runs: three views of one event, four windows × four aggregations each."""

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


def view(key: str) -> hr.FeatureView:
    """The same features for each kind of entity, so that the three cost alike but for their number of entities."""
    windows = ("10m", "1h", "24h", "7d")
    return hr.FeatureView(
        f"{key}_payments",
        entity=hr.Entity(key, keys={key: hr.string()}),
        event=payments,
        dedupe=0,
        features={
            "n": hr.count().over(*windows),
            "total": hr.sum("amount").over(*windows),
            "least": hr.min("amount").over(*windows),
            "most": hr.max("amount").over(*windows),
        },
    )


card_payments = view("card")
merchant_payments = view("merchant")
device_payments = view("device")
