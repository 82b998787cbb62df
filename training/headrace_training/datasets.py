"""Datasets: point-in-time correct features and labels for the rows of a spine.

Three notions of "knowable" (named in the manifest):
    event-time    an event is seen by rows strictly later than it, plus a declared lag
    as-served     exactly what a prediction saw, by the offsets that it logged; rows are served predictions
    as-available  what a reader could have seen, from recorded commit times; refused where none are recorded

Columns of a model's dataset: the spine's, then one per looked-up feature, named as served (``alias__feature``), then one per
on-demand transform, then the label. What must not live here: fitting, and the sweep itself (``lookups``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

import headrace as hr
from headrace.assembly import assemble, lookup_columns
from headrace.errors import ConfigError
from headrace_schemas.codecs import frame_columns
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.log import LogTable, event_log, prediction_log
from headrace_schemas.tables import EVENT_TIME, OFFSET, PARTITION
from headrace_training.fitting import Inputs
from headrace_training.labels import Labelled, join_labels
from headrace_training.lookups import Effort, Floats, Reads, join_reads, read_past
from headrace_training.manifests import DatasetManifest, content_hash, fingerprints
from headrace_training.served import Served, fits, served_spine
from headrace_training.spines import Spine, computed_fields, spine_from_keys, spine_from_log, spine_from_requests

Mode = Literal["event-time", "as-available", "as-served"]
MODES = ("event-time", "as-available", "as-served")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows with features, and labels if they were asked for.

    Attributes:
        frame: the columns; see the module.
        at_us: the moment of each row.
        typed: the request's fields in their declared types.
        label: name of the label's column; None without labels.
        manifest: what the dataset was made of.
    """

    frame: pl.DataFrame
    at_us: NDArray[np.int64]
    typed: pl.DataFrame
    label: str | None
    manifest: DatasetManifest

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def truth(self) -> Floats:
        """The label of each row."""
        if self.label is None:
            raise ConfigError("dataset: it has no label; build it for a model, without labels=False")
        return np.ascontiguousarray(self.frame[self.label].to_numpy())

    def inputs(self, model: hr.Model) -> Inputs:
        """The model's inputs, by the same assembly as in serving."""
        request = frame_columns(self.typed, model.request, computed_fields(model))
        return model_inputs(model, request, self.lookups(model))

    def lookups(self, model: hr.Model) -> list[Floats]:
        """The looked-up features of each of the model's lookups."""
        return [
            np.ascontiguousarray(self.frame.select(lookup.visible_name(name) for name in lookup.features).to_numpy())
            for lookup in model.lookups
        ]


def model_inputs(model: hr.Model, request: Mapping[str, NDArray[Any]], lookups: Sequence[Floats]) -> Inputs:
    """A model's named inputs from request columns and looked-up features."""
    assembled = assemble(model, request, lookups)
    numeric = tuple(item.name for item in model.inputs if item.dtype == "float")
    categorical = tuple(item.name for item in model.inputs if item.dtype == "string")
    return Inputs(numeric, categorical, assembled.numeric, assembled.categorical)


def build_dataset(
    loaded: LoadedProject,
    model: hr.Model | str,
    *,
    from_us: int | None = None,
    until_us: int | None = None,
    spine: pl.DataFrame | None = None,
    mode: Mode = "event-time",
    lag_us: int = 0,
    labels: bool = True,
    effort: Effort | None = None,
) -> Dataset:
    """The dataset of a model.

    Args:
        loaded: the project.
        model: the model or its name.
        from_us: request events from this moment on.
        until_us: request events strictly before this moment.
        spine: rows to use in place of logged request events: columns named as the request event's fields.
        mode: what "knowable" means; see the module.
        lag_us: event time only: how long after its time an event becomes knowable.
        labels: whether to join the label, and to leave out rows that have none.
        effort: how to use the machine.

    Raises:
        ConfigError: arguments that do not go together, a spine without a needed column, or a mode without its record.
        NotFound: an unknown model.
    """
    model = loaded.project.model(model) if isinstance(model, str) else model
    effort = effort or Effort()
    logs = _Logs(loaded)
    _validate_mode(mode, lag_us, spine, model)
    rows, served = _rows(logs, model, spine, mode, from_us, until_us)
    counts: dict[str, int] = dict(rows.left_out)
    labelled = None
    if labels:
        labelled = _labels(logs, model, rows)
        counts |= {"horizon open": labelled.open, "outcome missing": labelled.dropped, "filled": labelled.filled}
        # Labels first: rows without one need no features.
        kept = np.flatnonzero(labelled.keep)
        rows, served = rows.take(kept), None if served is None else served_spine(model, served.frame[kept])
    features = _model_features(logs, model, rows, served, lag_us, effort)
    frame = _frame(model, rows, features, labelled)
    manifest = DatasetManifest(
        mode=mode,
        lag_us=lag_us,
        spine={"model": model.name, **rows.source},
        counts={"rows": len(frame), **counts},
        logs=logs.facts(),
        fingerprints=fingerprints(tuple(dict.fromkeys(lookup.view for lookup in model.lookups)), model),
        columns={name: str(dtype) for name, dtype in frame.schema.items()},
        span_us=_span(rows.at_us),
        label=model.label.canonical() if labels else None,
        content=content_hash(frame),
    )
    return Dataset(frame, rows.at_us, rows.typed, model.label.name if labels else None, manifest)


def features_for_spine(
    loaded: LoadedProject,
    views: Sequence[hr.FeatureView | str],
    spine: pl.DataFrame,
    *,
    time: str = "at",
    lag_us: int = 0,
    effort: Effort | None = None,
) -> Dataset:
    """The features of some views for any table of entity keys and moments, in event time.

    Args:
        loaded: the project.
        views: views or their names; their features are named ``view__feature``.
        spine: a column for each entity key, and one of moments; all its columns come first in the result.
        time: name of the column of moments.
        lag_us: how long after its time an event becomes knowable.
        effort: how to use the machine.

    Raises:
        ConfigError: a column is missing, of another type, or holds nulls.
        NotFound: an unknown view.
    """
    chosen = tuple(loaded.project.view(view) if isinstance(view, str) else view for view in views)
    logs = _Logs(loaded)
    rows = spine_from_keys(chosen, spine, time=time)
    columns: dict[str, NDArray[np.float64]] = {}
    for view in chosen:
        # A table of keys names them as the entity does.
        lookup = view.lookup(**{key: key for key in view.entity.keys})
        values = read_past(view, logs.scan(view.event), rows.reads(lookup, folded=False), lag_us=lag_us, effort=effort)
        columns |= {lookup.visible_name(name): values[:, j] for j, name in enumerate(view.feature_names)}
    frame = _with_columns(rows.table, columns)
    manifest = DatasetManifest(
        mode="event-time",
        lag_us=lag_us,
        spine=rows.source,
        counts={"rows": len(frame)},
        logs=logs.facts(),
        fingerprints=fingerprints(chosen),
        columns={name: str(dtype) for name, dtype in frame.schema.items()},
        span_us=_span(rows.at_us),
        content=content_hash(frame),
    )
    return Dataset(frame, rows.at_us, rows.typed, None, manifest)


class _Logs:
    """The logs of one dataset, each read at one version, and what a manifest says of them."""

    def __init__(self, loaded: LoadedProject) -> None:
        self._loaded = loaded
        self._tables: dict[str, tuple[LogTable, int]] = {}
        self._facts: dict[str, Mapping[str, object]] = {}

    def scan(self, event: hr.Event) -> pl.LazyFrame:
        """All events of a log, as of the version that was first seen."""
        return self._scan(event.name, lambda: event_log(self._loaded.settings, event))

    def predictions(self) -> pl.LazyFrame:
        """All predictions."""
        return self._scan("(predictions)", lambda: prediction_log(self._loaded.settings))

    def facts(self) -> dict[str, Mapping[str, object]]:
        """Version, rows and newest event time of each log."""
        for name, (table, version) in self._tables.items():
            if name not in self._facts:
                columns = pl.len().alias("rows"), pl.col(EVENT_TIME).max().alias("newest_us")
                found = table.scan(version if version >= 0 else None).select(*columns).collect().row(0, named=True)
                self._facts[name] = {"version": version, **found}
        return dict(sorted(self._facts.items()))

    def _scan(self, name: str, open_table: Any) -> pl.LazyFrame:
        if name not in self._tables:
            table = open_table()
            self._tables[name] = table, table.version
        table, version = self._tables[name]
        return table.scan(version if version >= 0 else None)


def _validate_mode(mode: str, lag_us: int, spine: pl.DataFrame | None, model: hr.Model) -> None:
    if mode not in MODES:
        raise ConfigError(f"dataset mode: one of {', '.join(MODES)} is required, got {mode!r}; write mode='event-time'")
    if lag_us < 0:
        raise ConfigError(f"dataset lag: zero or more microseconds are required, got {lag_us}; write lag_us=0")
    if mode == "as-available":
        views = ", ".join(sorted({lookup.view.name for lookup in model.lookups}))
        raise ConfigError(
            f"dataset mode as-available: recorded commit times of views {views} are required, but none are recorded for "
            "this span (replayed and loaded history never is); use mode='event-time' and declare a lag, such as lag_us=5_000_000"
        )
    if mode == "as-served" and (spine is not None or lag_us):
        raise ConfigError(
            "dataset mode as-served: its rows and what they saw come from the prediction log, so a spine or a lag cannot be "
            "given; leave them out, or use mode='event-time'"
        )


def _rows(
    logs: _Logs, model: hr.Model, table: pl.DataFrame | None, mode: Mode, from_us: int | None, until_us: int | None
) -> tuple[Spine, Served | None]:
    if table is not None:
        if from_us is not None or until_us is not None:
            raise ConfigError(
                "dataset: a spine and a span were given, but a spine's rows are all used; filter the spine, or leave it out"
            )
        return spine_from_requests(model, table), None
    if mode == "event-time":
        return spine_from_log(model, logs.scan(model.request), from_us=from_us, until_us=until_us), None
    frame = logs.predictions().filter(pl.col("model") == model.name).collect().sort("at_us", PARTITION, OFFSET)
    if from_us is not None:
        frame = frame.filter(pl.col("at_us") >= from_us)
    if until_us is not None:
        frame = frame.filter(pl.col("at_us") < until_us)
    good = fits(frame, model)
    served = served_spine(model, frame.filter(pl.Series(good)))
    left_out = {"other definitions": int((~good).sum())}
    spine = served.spine
    spine = Spine(spine.table, spine.typed, spine.at_us, spine.id_hash, spine.source, left_out)
    return spine, Served(served.frame, spine, served.lookups)


def _labels(logs: _Logs, model: hr.Model, rows: Spine) -> Labelled:
    label = model.label
    for name in label.join:
        if name not in rows.typed.columns and name not in rows.table.columns:
            raise ConfigError(
                f"spine: label {label.name!r} joins on column {name!r}, but the table has {', '.join(rows.table.columns)}; "
                "add it, or build the dataset without labels"
            )
    outcomes = logs.scan(label.event).select(*dict.fromkeys([*label.columns, EVENT_TIME, PARTITION, OFFSET])).collect()
    table = rows.typed if all(name in rows.typed.columns for name in label.join) else rows.table
    return join_labels(label, table, rows.at_us, outcomes)


def _model_features(
    logs: _Logs, model: hr.Model, rows: Spine, served: Served | None, lag_us: int, effort: Effort
) -> list[Floats]:
    """The features of each lookup; lookups of one view share one sweep."""
    result: list[Floats] = [np.empty((0, 0))] * len(model.lookups)
    for view in dict.fromkeys(lookup.view for lookup in model.lookups):
        mine = [i for i, lookup in enumerate(model.lookups) if lookup.view == view]
        reads: list[Reads] = [
            rows.reads(model.lookups[i], folded=model.folded[i]) if served is None else served.reads(model, i)
            for i in mine
        ]
        values = read_past(view, logs.scan(view.event), join_reads(reads), lag_us=lag_us, effort=effort)
        for position, i in enumerate(mine):
            block = values[position * len(rows) : (position + 1) * len(rows)]
            result[i] = np.ascontiguousarray(block[:, lookup_columns(model, i)])
    return result


def _frame(model: hr.Model, rows: Spine, features: list[Floats], labelled: Labelled | None) -> pl.DataFrame:
    columns: dict[str, NDArray[np.float64]] = {}
    for lookup, values in zip(model.lookups, features, strict=True):
        columns |= {lookup.visible_name(name): values[:, j] for j, name in enumerate(lookup.features)}
    transforms = assemble(model, rows.request_columns(model), features).transforms
    columns |= {transform.name: transforms[:, j] for j, transform in enumerate(model.transforms)}
    if labelled is not None:
        columns[model.label.name] = labelled.value[labelled.keep]
    return _with_columns(rows.table, columns)


def _with_columns(table: pl.DataFrame, columns: Mapping[str, Floats]) -> pl.DataFrame:
    for name in columns:
        if name in table.columns:
            raise ConfigError(
                f"dataset: a spine's columns and the features need different names, but both have {name!r}; "
                "rename the spine's column, or give the lookup an alias"
            )
    return table.hstack([pl.Series(name, np.ascontiguousarray(values)) for name, values in columns.items()])


def _span(at_us: NDArray[np.int64]) -> tuple[int, int] | None:
    return (int(at_us.min()), int(at_us.max())) if len(at_us) else None
