"""Is this card payment fraudulent? Asked before the payment is accepted, and counting it.

What differs from the flights: JSON events beside Avro ones, amounts of money at an exact quantum, an entity of two keys, the
request's own event folded into what is read, and an outcome whose absence has a meaning: no chargeback within a week is a
good payment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import headrace as hr

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

payments = hr.Event(
    "payments",
    topic="fraud.payments",
    time="paid_at",
    id="payment_id",
    fields={
        "payment_id": hr.string(),
        "paid_at": hr.timestamp(),
        "card": hr.int64(ge=0),
        "merchant": hr.string(),
        "amount": hr.float64(quantum="0.01", ge=0, le=1_000_000, description="euros"),
        "country": hr.string(),
        "online": hr.boolean(),
    },
)

chargebacks = hr.Event(
    "chargebacks",
    topic="fraud.chargebacks",
    time="reported_at",
    id="payment_id",
    format="json",
    fields={
        "payment_id": hr.string(),
        "reported_at": hr.timestamp(),
        "merchant": hr.string(),
        "amount": hr.float64(quantum="0.01", ge=0),
    },
)

card = hr.Entity("card", keys={"card": hr.int64()})
merchant = hr.Entity("merchant", keys={"merchant": hr.string()})
pair = hr.Entity("card_at_merchant", keys={"card": hr.int64(), "merchant": hr.string()})

card_payments = hr.FeatureView(
    "card_payments",
    entity=card,
    event=payments,
    description="How the card has been used, this payment included.",
    features={
        "payments": hr.count().over("10m", "1h", "24h"),
        "amount": hr.sum("amount").over("1h", "24h"),
        "amount_mean": hr.mean("amount").over("7d"),
        "amount_spread": hr.std("amount").over("7d"),
        "online_share": hr.count(where=hr.col("online") == True).over("24h") / hr.count().over("24h"),  # noqa: E712
        "biggest": hr.max("amount").lifetime(),
    },
)

merchant_payments = hr.FeatureView(
    "merchant_payments",
    entity=merchant,
    event=payments,
    where=hr.col("amount") >= 1,
    description="What is usual at the merchant, trial payments of a few cents left out.",
    features={
        "payments": hr.count().over("1h", "24h"),
        "amount_mean": hr.mean("amount").over("24h"),
        "amount_max": hr.max("amount").over("24h"),
    },
)

pair_payments = hr.FeatureView(
    "pair_payments",
    entity=pair,
    event=payments,
    description="Whether the card is known there.",
    features={"payments": hr.count().lifetime(), "first_amount": hr.first("amount").over("7d")},
)

merchant_chargebacks = hr.FeatureView(
    "merchant_chargebacks",
    entity=merchant,
    event=chargebacks,
    description="Frauds that have come to light at the merchant.",
    features={"chargebacks": hr.count().over("7d"), "lost": hr.sum("amount").over("7d")},
)

of_card = card_payments.lookup()


@hr.on_demand(inputs={"amount": payments["amount"], "usual": of_card["amount_mean_7d"]})
def times_the_usual(amount: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """The amount as a multiple of what the card usually pays."""
    return amount / hr.maximum(usual, 0.01)


fraud = hr.Label(
    "fraud",
    event=chargebacks,
    join={"payment_id": "payment_id"},
    value=hr.col("amount") > 0,
    horizon="7d",
    missing=0.0,
)

CATEGORIES = ["country"]


def logistic_regression() -> Pipeline:
    """Imputing, scaling and encoding are fitted with the model, and travel with it inside the ONNX graph."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [column.name for column in payment_fraud.inputs if column.name not in CATEGORIES]
    scaled = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    encoded = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("numbers", scaled, numbers), ("categories", encoded, CATEGORIES)])
    return Pipeline([("columns", columns), ("regression", LogisticRegression(max_iter=1000))])


payment_fraud = hr.Model(
    "payment_fraud",
    request=payments,
    features=[
        payments["amount"],
        payments["country"],
        of_card,
        merchant_payments,
        pair_payments,
        merchant_chargebacks,
        times_the_usual,
    ],
    label=fraud,
    estimator=logistic_regression,
    task="binary",
    fold_request=True,
    on_unavailable="defaults",
    description="The probability that a payment will be charged back within a week.",
)
