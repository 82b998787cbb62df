"""Three views with twelve features each, one transform, gradient-boosted trees: what the predict benchmark serves."""

from __future__ import annotations

import headrace as hr

payments = hr.Event(
    "payments",
    fields={
        "payment_id": hr.string(),
        "paid_at": hr.timestamp(),
        "card": hr.int64(ge=0),
        "merchant": hr.string(),
        "device": hr.string(),
        "amount": hr.float64(quantum="0.01", ge=0, le=1_000_000),
    },
    time="paid_at",
    id="payment_id",
)
outcomes = hr.Event(
    "outcomes", fields={"payment_id": hr.string(), "at": hr.timestamp(), "bad": hr.int64()}, time="at", id="payment_id"
)


def view(name: str, key: str, field: hr.Field) -> hr.FeatureView:
    return hr.FeatureView(
        name,
        entity=hr.Entity(key, keys={key: field}),
        event=payments,
        features={
            "n": hr.count().over("1h", "24h", "7d"),
            "sum": hr.sum("amount").over("1h", "24h", "7d"),
            "mean": hr.mean("amount").over("1h", "24h", "7d"),
            "max": hr.max("amount").over("1h", "24h", "7d"),
        },
    )


cards = view("cards", "card", hr.int64())
merchants = view("merchants", "merchant", hr.string())
devices = view("devices", "device", hr.string())


WIDE = ("30m", "1h", "3h", "6h", "12h", "24h", "48h", "72h", "120h", "168h")
wide = hr.FeatureView(
    "wide",
    entity=cards.entity,
    event=payments,
    features={
        "n": hr.count().over(*WIDE),
        "sum": hr.sum("amount").over(*WIDE),
        "mean": hr.mean("amount").over(*WIDE),
        "max": hr.max("amount").over(*WIDE),
        "min": hr.min("amount").over(*WIDE),
    },
)


@hr.on_demand(inputs={"amount": payments["amount"], "usual": cards.lookup()["mean_7d"]})
def times_usual(amount, usual):
    return amount / hr.maximum(usual, 0.01)


bad = hr.Label(
    "bad",
    event=outcomes,
    join={"payment_id": "payment_id"},
    value=hr.col("bad") > 0,
    horizon="7d",
    missing=0.0,
)


def trees():
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_iter=200, max_depth=6, max_leaf_nodes=64, random_state=0)


risk = hr.Model(
    "risk",
    request=payments,
    features=[payments["amount"], cards, merchants, devices, times_usual],
    label=bad,
    estimator=trees,
    task="binary",
)
