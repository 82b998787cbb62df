"""The audit: every logged prediction computed again from the event log, and compared bit for bit with what was served.

For each record: the state of each lookup is rebuilt from the log up to the offsets that the record names (*as served*), read
at the record's moment, with the request's own event folded if it was; then transforms and the ONNX output. A difference in
any of them is skew, and there must be none. Also told, but no skew: how many values event time would give differently
(events that came late, or were not yet folded when the prediction was asked for).

What must not live here: printing, and anything that mends what is found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace.assembly import assemble, lookup_columns
from headrace.errors import NotFound
from headrace_schemas.bundles import Manifest
from headrace_schemas.keys import decode_key
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.log import event_log, prediction_log
from headrace_schemas.stores.registry import Registry
from headrace_schemas.tables import OFFSET, PARTITION
from headrace_training.datasets import model_inputs
from headrace_training.exporting import TOLERANCE, Runtime
from headrace_training.fitting import Inputs
from headrace_training.lookups import Effort, Floats, join_reads, read_past
from headrace_training.promoting import serves
from headrace_training.served import Served, fits, served_spine

SHOWN = 10
"""Differences that are described one by one; all are counted."""

TRANSFORMS = "(on-demand transforms)"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what was served."""

    prediction_id: str
    what: str
    name: str
    key: str
    at_us: int
    served: float
    recomputed: float


@dataclass(frozen=True, slots=True)
class Compared:
    """What was compared of one view, or of the transforms.

    Attributes:
        what: the view's name.
        values: values compared.
        differences: values whose bits differ: skew.
        empty: values of entities that had no state.
        late: values that event time would give differently: lateness, not skew; None if it was not asked for.
        ahead: reads of a state that held events at or after the moment of reading.
    """

    what: str
    values: int
    differences: int
    empty: int = 0
    late: int | None = None
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Outputs:
    """What was compared of the graph's answers.

    Attributes:
        exact: answers compared bit for bit, at the batch size at which they were given.
        within: answers of incomplete batches, compared within a tolerance.
        differences: answers that differ.
        max_difference: the largest difference.
        unchecked: answers of bundles that are not in the registry.
    """

    exact: int = 0
    within: int = 0
    differences: int = 0
    max_difference: float = 0.0
    unchecked: int = 0


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The result of an audit.

    Attributes:
        logged: predictions in the log, each id once.
        audited: predictions that were computed again.
        answered: predictions that the caller knows to have been answered; None if it does not know.
        repeated: records whose prediction id was in the log already.
        skipped: predictions that could not be computed again, by reason.
        compared: by view, and for the transforms.
        outputs: the graph's answers.
        first: the first differences.
    """

    logged: int
    audited: int
    answered: int | None
    repeated: int
    skipped: Mapping[str, int]
    compared: tuple[Compared, ...]
    outputs: Outputs
    first: tuple[Difference, ...] = field(default=())

    @property
    def values(self) -> int:
        """Values compared bit for bit, answers included."""
        return sum(part.values for part in self.compared) + self.outputs.exact

    @property
    def differences(self) -> int:
        """Values that differ."""
        return sum(part.differences for part in self.compared) + self.outputs.differences

    @property
    def ok(self) -> bool:
        """Whether answered = logged = audited, with no difference."""
        everything = self.audited == self.logged and self.answered in (None, self.logged)
        return everything and not self.differences

    def to_json(self) -> dict[str, object]:
        """The report as a command prints it."""
        return {
            "ok": self.ok,
            "answered": self.answered,
            "logged": self.logged,
            "audited": self.audited,
            "repeated": self.repeated,
            "skipped": dict(self.skipped),
            "values": self.values,
            "differences": self.differences,
            "compared": [
                {
                    "what": part.what,
                    "values": part.values,
                    "differences": part.differences,
                    "empty": part.empty,
                    "late": part.late,
                    "ahead": part.ahead,
                }
                for part in self.compared
            ],
            "outputs": {
                "exact": self.outputs.exact,
                "within_tolerance": self.outputs.within,
                "differences": self.outputs.differences,
                "max_difference": self.outputs.max_difference,
                "unchecked": self.outputs.unchecked,
            },
            "first": [
                {
                    "prediction_id": each.prediction_id,
                    "what": each.what,
                    "name": each.name,
                    "key": each.key,
                    "at_us": each.at_us,
                    "served": _plain(each.served),
                    "recomputed": _plain(each.recomputed),
                }
                for each in self.first
            ],
        }


def audit(
    loaded: LoadedProject,
    model: hr.Model | str | None = None,
    *,
    answered: int | None = None,
    registry: Registry | None = None,
    lateness: bool = True,
    effort: Effort | None = None,
) -> AuditReport:
    """Audit the prediction log.

    Args:
        loaded: the project.
        model: audit this model's predictions only.
        answered: how many predictions were answered, if the caller knows.
        registry: where bundles lie; by default the project's.
        lateness: whether to compare with event time as well.
        effort: how to use the machine.

    Raises:
        NotFound: an unknown model.
    """
    only = loaded.project.model(model).name if isinstance(model, str) else None if model is None else model.name
    log = prediction_log(loaded.settings).scan()
    frame = (log if only is None else log.filter(pl.col("model") == only)).collect().sort(PARTITION, OFFSET)
    distinct = frame.unique("prediction_id", keep="first", maintain_order=True)
    job = _Audit(loaded, registry or Registry(loaded.settings.registry_path), effort or Effort(), lateness)
    for name in distinct["model"].unique().sort().to_list():
        job.audit_model(name, distinct.filter(pl.col("model") == name))
    return AuditReport(
        logged=len(distinct),
        audited=job.audited,
        answered=answered,
        repeated=len(frame) - len(distinct),
        skipped=dict(sorted(job.skipped.items())),
        compared=tuple(job.compared[what] for what in sorted(job.compared)),
        outputs=job.outputs,
        first=tuple(job.first[:SHOWN]),
    )


class _Audit:
    """One audit, model by model."""

    def __init__(self, loaded: LoadedProject, registry: Registry, effort: Effort, lateness: bool) -> None:
        self._loaded, self._registry, self._effort, self._lateness = loaded, registry, effort, lateness
        self.audited = 0
        self.skipped: dict[str, int] = {}
        self.compared: dict[str, Compared] = {}
        self.outputs = Outputs()
        self.first: list[Difference] = []

    def audit_model(self, name: str, frame: pl.DataFrame) -> None:
        try:
            model = self._loaded.project.model(name)
        except NotFound:
            self._skip("of a model that the project no longer declares", len(frame))
            return
        bundles = self._bundles(name, frame)
        good = fits(frame, model) & self._same_inputs(model, frame, bundles)
        self._skip("made with other definitions than the project has now", int((~good).sum()))
        frame = frame.filter(pl.Series(good))
        logged = self._in_log(model, frame)
        self._skip("whose events are not yet in the event log", int((~logged).sum()))
        frame = frame.filter(pl.Series(logged))
        if not len(frame):
            return
        served = served_spine(model, frame)
        self.audited += len(frame)
        features = self._features(model, served)
        self._transforms_and_outputs(model, served, features, bundles)

    def _skip(self, reason: str, count: int) -> None:
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def _bundles(self, model: str, frame: pl.DataFrame) -> dict[str, tuple[bytes, Manifest] | None]:
        found: dict[str, tuple[bytes, Manifest] | None] = {}
        for version in frame["bundle"].unique().to_list():
            try:
                bundle = self._registry.load(model, version)
                found[version] = bundle.onnx, bundle.manifest
            except NotFound:
                found[version] = None
        return found

    def _same_inputs(
        self, model: hr.Model, frame: pl.DataFrame, bundles: Mapping[str, tuple[bytes, Manifest] | None]
    ) -> NDArray[np.bool_]:
        other = [v for v, bundle in bundles.items() if bundle is not None and not serves(model, bundle[1])]
        return (~frame["bundle"].is_in(other)).to_numpy()

    def _in_log(self, model: hr.Model, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """Records all of whose included offsets the event logs have reached."""
        good = np.ones(len(frame), np.bool_)
        if not len(frame):
            return good
        served = served_spine(model, frame)
        for lookup, each in zip(model.lookups, served.lookups, strict=True):
            mark = event_log(self._loaded.settings, lookup.view.event).watermark()
            reached = np.zeros(1 + max([*mark, *each.seen.partition.tolist(), 0]), np.int64)
            for partition, offset in mark.items():
                reached[partition] = offset
            beyond = each.seen.offset >= reached[each.seen.partition]
            good[np.repeat(np.arange(len(frame)), np.diff(each.seen.start))[beyond]] = False
        return good

    def _features(self, model: hr.Model, served: Served) -> list[Floats]:
        """The features of each lookup, computed again; each compared with what was served."""
        logged = _split_features(model, served.frame)
        result: list[Floats] = [np.empty((0, 0))] * len(model.lookups)
        for view in dict.fromkeys(lookup.view for lookup in model.lookups):
            mine = [i for i, lookup in enumerate(model.lookups) if lookup.view == view]
            reads = [served.reads(model, i) for i in mine]
            log = event_log(self._loaded.settings, view.event).scan()
            values = read_past(view, log, join_reads(reads), effort=self._effort)
            by_time = None
            if self._lateness:
                timed = join_reads([replace(read, seen=None) for read in reads])
                by_time = read_past(view, log, timed, effort=self._effort)
            for position, i in enumerate(mine):
                rows = slice(position * len(served), (position + 1) * len(served))
                result[i] = np.ascontiguousarray(values[rows][:, lookup_columns(model, i)])
                late = None if by_time is None else _unequal(logged[i], by_time[rows][:, lookup_columns(model, i)])
                self._compare_lookup(model, served, i, logged[i], result[i], late)
        return result

    def _compare_lookup(
        self, model: hr.Model, served: Served, i: int, logged: Floats, found: Floats, late: NDArray[np.bool_] | None
    ) -> None:
        lookup, each = model.lookups[i], served.lookups[i]
        different = _unequal(logged, found)
        part = Compared(
            what=lookup.view.name,
            values=found.size,
            differences=int(different.sum()),
            empty=int((~each.found).sum()) * found.shape[1],
            late=None if late is None else int(late.sum()),
            ahead=int(each.ahead.sum()),
        )
        self._add(part)
        names = [lookup.visible_name(name) for name in lookup.features]
        keys = (_key(lookup.view, served, i, row) for row in np.flatnonzero(different.any(axis=1)).tolist())
        self._describe(served, part.what, names, keys, logged, found, different)

    def _transforms_and_outputs(
        self,
        model: hr.Model,
        served: Served,
        features: list[Floats],
        bundles: Mapping[str, tuple[bytes, Manifest] | None],
    ) -> None:
        request = served.spine.request_columns(model)
        if model.transforms:
            logged = _floats(served.frame["transforms"], len(model.transforms))
            found = assemble(model, request, features).transforms
            different = _unequal(logged, found)
            self._add(Compared(TRANSFORMS, found.size, int(different.sum())))
            names = [transform.name for transform in model.transforms]
            self._describe(served, TRANSFORMS, names, iter(()), logged, found, different)
        inputs = model_inputs(model, request, features)
        for version, bundle in bundles.items():
            rows = np.flatnonzero((served.frame["bundle"] == version).to_numpy())
            if bundle is None:
                self.outputs = replace(self.outputs, unchecked=self.outputs.unchecked + len(rows))
            elif len(rows):
                self._compare_outputs(served, rows, inputs, Runtime(bundle[0]))

    def _compare_outputs(self, served: Served, rows: NDArray[np.int64], inputs: Inputs, runtime: Runtime) -> None:
        logged = _floats(served.frame["output"], 1)[:, 0]
        found = np.full(len(served), np.nan)
        different = np.zeros(len(served), np.bool_)
        exact = within = 0
        for batch, complete in _batches(served.frame, rows):
            found[batch] = runtime.run(inputs.take(batch))
            if complete:
                exact += len(batch)
                different[batch] = _unequal(logged[batch], found[batch])
            else:
                within += len(batch)
                bound = TOLERANCE * np.maximum(1.0, np.abs(found[batch]))
                different[batch] = ~(np.abs(logged[batch] - found[batch]) <= bound)
        worst = float(np.abs(logged[rows] - found[rows]).max(initial=0.0))
        before = self.outputs
        self.outputs = replace(
            before,
            exact=before.exact + exact,
            within=before.within + within,
            differences=before.differences + int(different.sum()),
            max_difference=max(before.max_difference, worst),
        )
        self._describe(served, "(output)", ["output"], iter(()), logged[:, None], found[:, None], different[:, None])

    def _add(self, part: Compared) -> None:
        before = self.compared.get(part.what)
        if before is not None:
            late = None if part.late is None or before.late is None else before.late + part.late
            part = Compared(
                part.what,
                before.values + part.values,
                before.differences + part.differences,
                before.empty + part.empty,
                late,
                before.ahead + part.ahead,
            )
        self.compared[part.what] = part

    def _describe(
        self,
        served: Served,
        what: str,
        names: list[str],
        keys: Iterator[str],
        logged: Floats,
        found: Floats,
        different: NDArray[np.bool_],
    ) -> None:
        for row in np.flatnonzero(different.any(axis=1)).tolist():
            if len(self.first) >= SHOWN:
                return
            key = next(keys, "")
            identity, at_us = served.frame["prediction_id"][row], int(served.spine.at_us[row])
            for column in np.flatnonzero(different[row]).tolist():
                values = float(logged[row, column]), float(found[row, column])
                self.first.append(Difference(identity, what, names[column], key, at_us, *values))


def _split_features(model: hr.Model, frame: pl.DataFrame) -> list[Floats]:
    """The served features of each lookup, from the record's one run of numbers."""
    widths = [len(lookup.features) for lookup in model.lookups]
    values = _floats(frame["features"], sum(widths))
    return np.split(values, np.cumsum(widths)[:-1], axis=1) if widths else []


def _floats(column: pl.Series, width: int) -> Floats:
    """Little-endian float64 of each record. A record of another length keeps NaN bits that nothing computes."""
    rows = column.to_list()
    result = np.full((len(rows), width), np.frombuffer(b"\x01" + b"\xff" * 7, "<f8")[0])
    for i, data in enumerate(rows):
        if len(data) == 8 * width:
            result[i] = np.frombuffer(data, "<f8")
    return result


def _unequal(served: Floats, found: Floats) -> NDArray[np.bool_]:
    """Where the bits differ."""
    a, b = np.ascontiguousarray(served, np.float64), np.ascontiguousarray(found, np.float64)
    different: NDArray[np.bool_] = a.view(np.uint64) != b.view(np.uint64)
    return different


def _batches(frame: pl.DataFrame, rows: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], bool]]:
    """The rows of each request in its order, and whether all of them are there."""
    part = frame[rows].select("batch_id", "row", "batch_size").with_columns(pl.Series("_at", rows))
    for _, batch in part.sort("batch_id", "row").group_by("batch_id", maintain_order=True):
        complete = batch["row"].to_list() == list(range(int(batch["batch_size"][0])))
        yield batch["_at"].to_numpy(), complete


def _key(view: hr.FeatureView, served: Served, i: int, row: int) -> str:
    keys = served.lookups[i].keys
    data = bytes(keys.data[keys.offsets[row] : keys.offsets[row + 1]])
    kinds = [str if key.type is hr.string().type else int for key in view.entity.keys.values()]
    return ", ".join(f"{name}={value}" for name, value in zip(view.entity.keys, decode_key(data, kinds), strict=True))


def _plain(value: float) -> float | str:
    return value if np.isfinite(value) else str(value)
