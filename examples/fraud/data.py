"""Generated card payments: the same seed gives the same events.

Two thousand cards pay at three hundred merchants for three weeks. A card has a usual amount, a home country and a few
favourite merchants. A stolen card shows the pattern that its features can see: some trial payments of a few cents, then
several large ones within the hour, online and abroad, at merchants where it was never seen. Most are charged back days later.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl

START = datetime(2026, 1, 5, tzinfo=UTC)
DAYS = 21
# The last days are played as live traffic; before them lies a week whose chargebacks can still come, and the training span.
LIVE_FROM = datetime(2026, 1, 25, tzinfo=UTC)

CARDS = 2_000
MERCHANTS = 300
COUNTRIES = np.array(["AT", "CH", "DE", "FR", "IT", "NL"])
_US = 1_000_000
_DAY_S = 86_400


def events(seed: int = 7, payments: int = 60_000, thefts: int = 150) -> dict[str, pl.DataFrame]:
    """Payments and chargebacks in event-time order.

    Args:
        seed: the same seed gives the same events.
        payments: how many honest payments.
        thefts: how many cards are stolen.
    """
    random = np.random.default_rng(seed)
    honest, stolen = _honest(random, payments), _stolen(random, thefts)
    both = pl.concat([honest, stolen]).sort("paid_at", "card", "amount", maintain_order=True)
    both = both.with_columns(payment_id=pl.format("p{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(7)))
    return {"payments": both.drop("_reported_at"), "chargebacks": _chargebacks(both)}


def _honest(random: np.random.Generator, n: int) -> pl.DataFrame:
    card = random.zipf(1.3, n) % CARDS
    usual = np.random.default_rng(1).lognormal(3.2, 0.6, CARDS)
    favourite = np.random.default_rng(2).integers(0, MERCHANTS, (CARDS, 4))
    home = np.random.default_rng(3).integers(0, len(COUNTRIES), CARDS)
    abroad = random.random(n) < 0.03
    country = np.where(abroad, random.integers(0, len(COUNTRIES), n), home[card])
    second = _daytime(random, n)
    return _frame(
        second=second,
        card=card,
        merchant=np.where(
            random.random(n) < 0.8, favourite[card, random.integers(0, 4, n)], random.integers(0, MERCHANTS, n)
        ),
        amount=usual[card] * random.lognormal(0, 0.5, n),
        country=country,
        online=random.random(n) < 0.25,
        reported=np.full(n, -1),
    )


def _stolen(random: np.random.Generator, thefts: int) -> pl.DataFrame:
    """Per theft three trial payments, then five large ones within the hour."""
    burst = 8
    n = thefts * burst
    trial = np.tile(np.arange(burst) < 3, thefts)
    start = np.repeat(random.uniform(0, DAYS * _DAY_S - 3_600, thefts), burst)
    second = start + np.tile(np.linspace(0, 3_000, burst), thefts) + random.uniform(0, 300, n)
    reported = second + random.uniform(0.5, 6.5, n) * _DAY_S
    return _frame(
        second=second,
        card=np.repeat(random.integers(0, CARDS, thefts), burst),
        merchant=np.repeat(random.integers(0, MERCHANTS // 10, thefts), burst),
        amount=np.where(trial, random.uniform(0.1, 0.9, n), random.uniform(80, 600, n)),
        country=np.repeat(random.integers(0, len(COUNTRIES), thefts), burst),
        online=np.ones(n, dtype=bool),
        reported=np.where(trial | (random.random(n) < 0.1), -1, reported),
    )


def _daytime(random: np.random.Generator, n: int) -> np.ndarray:
    """Seconds since the start, denser towards the afternoon."""
    hour = np.clip(random.normal(14, 4, n), 0, 23.99)
    return random.integers(0, DAYS, n) * _DAY_S + hour * 3_600 + random.uniform(0, 36, n)


def _frame(
    *,
    second: np.ndarray,
    card: np.ndarray,
    merchant: np.ndarray,
    amount: np.ndarray,
    country: np.ndarray,
    online: np.ndarray,
    reported: np.ndarray,
) -> pl.DataFrame:
    start_us = int(START.timestamp()) * _US
    return pl.DataFrame(
        {
            "paid_at": _moments(start_us, second),
            "card": card.astype(np.int64),
            "merchant": merchant.astype(np.int64),
            "amount": np.round(amount, 2),
            "country": COUNTRIES[country],
            "online": online,
            "_reported_at": pl.Series(_moments(start_us, reported)).set(pl.Series(reported < 0), None),
        }
    ).with_columns(merchant=pl.format("m{}", pl.col("merchant").cast(pl.String).str.zfill(3)))


def _moments(start_us: int, second: np.ndarray) -> pl.Series:
    micros = start_us + np.round(second * 1_000).astype(np.int64) * 1_000
    return pl.Series(micros).cast(pl.Datetime("us", "UTC"))


def _chargebacks(payments: pl.DataFrame) -> pl.DataFrame:
    return (
        payments.drop_nulls("_reported_at")
        .select("payment_id", pl.col("_reported_at").alias("reported_at"), "merchant", "amount")
        .sort("reported_at", "payment_id")
    )
