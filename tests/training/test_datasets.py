"""Datasets are point-in-time correct: every value equals the naive oracle's over exactly the knowable events."""

import numpy as np
import polars as pl
import pytest

import headrace as hr
from headrace.errors import ConfigError, NotFound
from headrace.oracle import naive
from headrace_training.datasets import build_dataset, features_for_spine
from headrace_training.lookups import Effort
from tests.training import payments as shop

LAST = 2**62


@pytest.fixture(scope="module")
def world():
    return shop.generate(11, 900)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory, world):
    loaded = shop.project(tmp_path_factory.mktemp("shop"))
    shop.write_logs(loaded, world)
    return loaded


def same(found: float, expected: float | None) -> bool:
    return np.isnan(found) if expected is None else found == expected


def check_against_oracle(dataset, world, *, lag_us=0, own=True):
    """Every feature of every row against the definition; returns how many values were compared."""
    compared = 0
    for row in dataset.frame.iter_rows(named=True):
        at = row["at"]
        seen = [p for p in world.payments if p["at"] + lag_us < at]
        if own:
            seen = [*seen, {**{f: row[f] for f in shop.payments.fields}, "_partition": 10**6, "_offset": LAST}]
        for lookup in shop.fraud.lookups:
            expected = naive(lookup.view, seen, {key: row[f] for key, f in lookup.keys.items()}, at)
            for name in lookup.features:
                found = row[lookup.visible_name(name)]
                assert same(found, expected[name]), (row["payment_id"], lookup.view.name, name, found, expected[name])
                compared += 1
    return compared


def test_every_feature_equals_the_oracle_over_the_strictly_earlier_events_and_the_own_one(loaded, world):
    dataset = build_dataset(loaded, "fraud", until_us=shop.START_US + 100 * shop.MINUTE, labels=False)
    assert len(dataset) > 200
    compared = check_against_oracle(dataset, world)
    assert compared == len(dataset) * 15
    values = dataset.frame.select(pl.selectors.contains("__")).to_numpy()
    assert np.isfinite(values).mean() > 0.8, "most values are real ones"


def test_a_lag_hides_the_events_that_were_not_yet_knowable(loaded, world):
    lag = 7 * shop.MINUTE
    span = {"from_us": shop.START_US + 50 * shop.MINUTE, "until_us": shop.START_US + 90 * shop.MINUTE}
    dataset = build_dataset(loaded, "fraud", **span, lag_us=lag, labels=False)
    check_against_oracle(dataset, world, lag_us=lag)
    assert dataset.manifest.lag_us == lag
    assert dataset.manifest.content != build_dataset(loaded, "fraud", **span, labels=False).manifest.content


def test_a_row_never_depends_on_later_events(loaded, world, tmp_path):
    """The future is cut away or exchanged: rows before it stay the same bit for bit."""
    cut = shop.START_US + 120 * shop.MINUTE
    earlier = shop.World([p for p in world.payments if p["at"] < cut], world.chargebacks)
    alone = shop.project(tmp_path)
    shop.write_logs(alone, earlier)
    whole = build_dataset(loaded, "fraud", until_us=cut)
    assert whole.frame.equals(build_dataset(alone, "fraud", until_us=cut).frame)
    assert len(whole) > 300


@pytest.mark.parametrize("effort", [Effort(threads=1), Effort(threads=3), Effort(threads=2, bucket_events=100)])
def test_threads_and_buckets_leave_no_trace(loaded, effort):
    reference = build_dataset(loaded, "fraud")
    other = build_dataset(loaded, "fraud", effort=effort)
    assert other.frame.equals(reference.frame, null_equal=True)
    assert other.manifest.to_bytes() == reference.manifest.to_bytes()


def test_the_same_call_gives_the_same_bytes_however_the_log_is_cut(loaded, world, tmp_path):
    other = shop.project(tmp_path)
    shop.write_logs(other, world, appends=11)
    first, second = build_dataset(loaded, "fraud"), build_dataset(other, "fraud")
    assert first.manifest.content == second.manifest.content
    assert first.manifest.hash != second.manifest.hash, "another version of the log is another dataset"
    assert build_dataset(loaded, "fraud").manifest.to_bytes() == first.manifest.to_bytes()


def test_duplicate_requests_are_one_row_and_the_manifest_counts_them(loaded, world):
    dataset = build_dataset(loaded, "fraud", labels=False)
    distinct = len({p["payment_id"] for p in world.payments})
    counts = dataset.manifest.counts
    assert counts["rows"] == distinct == len(dataset)
    assert counts["duplicate"] == len(world.payments) - distinct > 0


def test_labels_follow_the_declaration_and_are_counted(loaded, world):
    dataset = build_dataset(loaded, "fraud")
    counts = dataset.manifest.counts
    newest = max(c["at"] for c in world.chargebacks)
    horizon = shop.charged_back.horizon_us
    lost = {c["payment_id"]: c["at"] for c in world.chargebacks if c["lost"] is not None}
    open_rows = 0
    expected = {}
    for p in {p["payment_id"]: p for p in world.payments}.values():
        if p["at"] + horizon >= newest:
            open_rows += 1
        else:
            came = lost.get(p["payment_id"])
            expected[p["payment_id"]] = float(came is not None and came <= p["at"] + horizon)
    found = dict(zip(dataset.frame["payment_id"], dataset.frame["charged_back"], strict=True))
    assert found == expected
    assert counts["horizon open"] == open_rows > 0
    assert counts["filled"] == sum(1 for v in expected.values() if v == 0)
    assert 0 < sum(expected.values()) < len(expected)


def test_rows_stand_in_order_of_time_with_the_spine_first(loaded):
    dataset = build_dataset(loaded, "fraud")
    assert dataset.frame["at"].is_sorted()
    assert dataset.frame.columns[:7] == list(shop.payments.fields)
    assert dataset.frame.columns[7] == "card_spending__n_10m"
    assert dataset.frame.columns[-2:] == ["against_usual", "charged_back"]


def test_a_table_of_requests_gives_the_same_features_as_the_log(loaded):
    from_log = build_dataset(loaded, "fraud", labels=False)
    table = from_log.frame.select("payment_id", "card", "merchant", "amount", "tip", "channel", "at").sample(
        80, seed=1, shuffle=True
    )
    moments = table.with_columns(pl.from_epoch("at", "us").dt.replace_time_zone("UTC"), extra=pl.lit("kept"))
    found = build_dataset(loaded, "fraud", spine=moments, labels=False)
    assert found.frame.columns[:8] == moments.columns
    expected = table.select("payment_id").join(from_log.frame, on="payment_id", maintain_order="left")
    features = [name for name in expected.columns if "__" in name] + ["against_usual"]
    assert found.frame.select(features).equals(expected.select(features))


def test_features_of_views_for_keys_and_moments_equal_the_oracle(loaded, world):
    r = np.random.default_rng(0)
    spine = pl.DataFrame(
        {
            "merchant": r.integers(0, 6, 60),
            "card": r.choice(["c1", "c2", "c77"], 60),
            "at": shop.START_US + r.integers(0, 200 * shop.MINUTE, 60),
        }
    )
    found = features_for_spine(loaded, ["merchant_traffic", shop.pair_history], spine)
    assert found.frame.columns == [
        "merchant", "card", "at", "merchant_traffic__n_30m", "merchant_traffic__top_30m", "merchant_traffic__first_30m",
        "pair_history__n", "pair_history__low",
    ]  # fmt: skip
    for row in found.frame.iter_rows(named=True):
        seen = [p for p in world.payments if p["at"] < row["at"]]
        expected = naive(shop.merchant_traffic, seen, {"merchant": row["merchant"]}, row["at"])
        assert all(same(row[f"merchant_traffic__{name}"], value) for name, value in expected.items())
        expected = naive(shop.pair_history, seen, {"card": row["card"], "merchant": row["merchant"]}, row["at"])
        assert all(same(row[f"pair_history__{name}"], value) for name, value in expected.items())
    with pytest.raises(ConfigError, match="it has no label"):
        found.truth  # noqa: B018  (it raises)


def test_progress_is_told_up_to_the_last_row(loaded):
    told = []
    build_dataset(loaded, "fraud", labels=False, effort=Effort(threads=2, progress=lambda *step: told.append(step)))
    for view in shop.VIEWS:
        steps = [(done, total) for what, done, total in told if what == f"view {view.name}"]
        assert steps[-1][0] == steps[-1][1]


# --- refusals --------------------------------------------------------------------------------------------------------


def test_as_available_without_recorded_commit_times_says_to_declare_a_lag(loaded):
    with pytest.raises(
        ConfigError, match=r"as-available: recorded commit times of views card_spending, .*declare a lag"
    ):
        build_dataset(loaded, "fraud", mode="as-available")


def test_an_unknown_mode_is_refused(loaded):
    with pytest.raises(ConfigError, match="one of event-time, as-available, as-served is required, got 'live'"):
        build_dataset(loaded, "fraud", mode="live")


def test_a_negative_lag_is_refused(loaded):
    with pytest.raises(ConfigError, match="zero or more microseconds are required, got -1"):
        build_dataset(loaded, "fraud", lag_us=-1)


def test_a_spine_and_a_span_do_not_go_together(loaded):
    with pytest.raises(ConfigError, match="a spine and a span were given"):
        build_dataset(loaded, "fraud", spine=pl.DataFrame(), until_us=5)


def test_as_served_takes_no_spine(loaded):
    with pytest.raises(ConfigError, match="as-served: its rows .* a spine or a lag cannot be given"):
        build_dataset(loaded, "fraud", spine=pl.DataFrame(), mode="as-served")


def test_a_missing_column_names_the_closest_one(loaded):
    table = pl.DataFrame({"payment_id": ["p1"], "at": [1], "cards": ["c1"], "merchant": [1], "amount": [1.0]})
    with pytest.raises(ConfigError, match=r"model 'fraud' needs a column 'card' \(string\).*did you mean 'cards'"):
        build_dataset(loaded, "fraud", spine=table, labels=False)


def requests(**changes):
    row = {"payment_id": "p1", "at": 1, "card": "c1", "merchant": 1, "amount": 1.0, "tip": 0.5, "channel": "shop"}
    return pl.DataFrame([{**row, **changes}])


def test_a_column_of_another_type_is_refused(loaded):
    with pytest.raises(ConfigError, match="column 'merchant' must be of type int64, but it is String; cast it"):
        build_dataset(loaded, "fraud", spine=requests(merchant="1"), labels=False)


def test_a_time_without_a_zone_is_refused(loaded):
    table = requests().with_columns(pl.from_epoch("at", "us"))
    with pytest.raises(ConfigError, match="column 'at' must be of type timestamp.*give times a zone"):
        build_dataset(loaded, "fraud", spine=table, labels=False)


def test_a_null_entity_key_in_a_spine_is_refused(loaded):
    table = pl.concat([requests(), requests().with_columns(card=pl.lit(None, pl.String))])
    with pytest.raises(ConfigError, match="column 'card' is an entity key .* but 1 of 2 rows do; leave those rows out"):
        build_dataset(loaded, "fraud", spine=table, labels=False)


def test_a_null_in_a_table_of_keys_is_refused(loaded):
    table = pl.DataFrame({"merchant": [1, None], "at": [1, 2]})
    with pytest.raises(ConfigError, match="column 'merchant' must not hold nulls, but 1 of 2 rows do"):
        features_for_spine(loaded, ["merchant_traffic"], table)


def test_a_spine_that_already_has_a_features_column_is_refused(loaded):
    table = requests().with_columns(pair_history__n=pl.lit(1.0))
    with pytest.raises(ConfigError, match="both have 'pair_history__n'; rename the spine's column"):
        build_dataset(loaded, "fraud", spine=table, labels=False)


def test_an_unknown_model_or_view_is_not_found(loaded):
    with pytest.raises(NotFound, match="did you mean 'fraud'"):
        build_dataset(loaded, "frauds")
    with pytest.raises(NotFound, match="did you mean 'pair_history'"):
        features_for_spine(loaded, ["pair_histori"], pl.DataFrame())


def test_an_unwritten_log_gives_an_empty_dataset(tmp_path):
    dataset = build_dataset(shop.project(tmp_path), "fraud")
    assert len(dataset) == 0
    assert dataset.manifest.span_us is None
    assert dataset.manifest.logs["payments"]["version"] == -1
    assert isinstance(shop.fraud, hr.Model)
