"""No skew over HTTP: served features equal the dataset's, and the audit finds no difference.

The last two days of a span are asked for minute by minute: every departure of a minute after all earlier events are committed
and before any event of that minute is produced. So event time and "as served" are the same here, and both must equal what the
response carried.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from headrace_training.auditing import audit
from headrace_training.datasets import build_dataset
from headrace_training.training import train
from tests.parity.flights import Rig, records
from tests.parity.live import MODEL, Answered, ask, serve, wait_predictions
from tests.services import Services

JANUARY = 1_356_998_400_000_000
DAY = 86_400_000_000
LIVE_FROM = JANUARY + 28 * DAY
LIVE_UNTIL = LIVE_FROM + 2 * DAY


@pytest.mark.timeout(400)
def test_served_equals_dataset_and_the_audit_is_clean(shared_services: Services, tmp_path: Path) -> None:
    """At least 50,000 feature values come over HTTP; each is bit for bit what the dataset says and what the audit recomputes."""
    with Rig(shared_services, tmp_path, f"served-{shared_services.name}") as rig:
        worker = rig.start("stream")
        rig.start("log")
        rig.produce(records(rig.project, JANUARY, LIVE_FROM))
        rig.wait_committed(alive=worker)
        rig.wait_logged()
        train(rig.loaded, MODEL, created_at=datetime(2013, 1, 29, tzinfo=UTC), promote="always")
        served = ask(rig, serve(rig), records(rig.project, LIVE_FROM, LIVE_UNTIL))
        rig.wait_logged()
        wait_predictions(rig, len(served))

        values, default = compare_with_dataset(rig, served)
        print(
            f"\nserved = dataset on {shared_services.name}: {values:,} values, {1 - default / values:.1%} not default"
        )
        assert values >= 50_000
        assert default <= 0.2 * values

        report = audit(rig.loaded, MODEL, answered=len(served))
        print(
            f"answered {report.answered:,} = logged {report.logged:,} = audited {report.audited:,}, {report.values:,} values"
        )
        assert (report.answered, report.logged, report.audited) == (len(served),) * 3
        assert report.differences == 0, report.first
        assert report.ok


def compare_with_dataset(rig: Rig, served: Answered) -> tuple[int, int]:
    """Compare every served feature and transform; returns values compared, and those of them that are null or 0."""
    dataset = build_dataset(rig.loaded, MODEL, from_us=LIVE_FROM, until_us=LIVE_UNTIL, labels=False).frame
    rows = {row["flight_id"]: row for row in dataset.iter_rows(named=True)}
    values = default = 0
    for departure, prediction in served:
        expected = rows[departure["flight_id"]]
        for name, answer in prediction["features"].items():
            got, wanted = answer["value"], expected[name]
            missing = wanted is None or np.isnan(wanted)
            assert (got is None) if missing else got == wanted, (
                f"{departure['flight_id']} {name}: {got!r}, not {wanted!r}"
            )
            values += 1
            default += missing or wanted == 0
    return values, default
