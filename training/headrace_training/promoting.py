"""Promotion: an alias moves only through a gate, which compares both models on the same rows.

The gate, in order:
    1. the challenger must beat the constant baseline of its own fitting part (`skill` above 0);
    2. without a champion, or with one that no longer fits the project's definitions (serving would refuse it), that is all;
    3. otherwise the challenger must be at least as good as the champion on the challenger's hold-out, by the primary metric.

What must not live here: fitting, and where bundles lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

import headrace as hr
from headrace.errors import NotFound
from headrace_schemas.bundles import Manifest
from headrace_schemas.loading import LoadedProject
from headrace_schemas.stores.registry import CHAMPION, Bundle, Registry
from headrace_training.datasets import Mode, build_dataset
from headrace_training.evaluating import Bootstrap, Comparison, Task, compare
from headrace_training.exporting import Runtime
from headrace_training.fitting import Floats, Inputs
from headrace_training.lookups import Effort


@dataclass(frozen=True, slots=True)
class Holdout:
    """Rows to compare on."""

    inputs: Inputs
    truth: Floats
    at_us: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate said.

    Attributes:
        promoted: whether the alias now points to the challenger.
        reason: why, as a sentence.
        champion: version of the champion before; None if there was none.
        challenger: version of the challenger.
        comparison: both on the same rows, where they could be compared.
    """

    promoted: bool
    reason: str
    champion: str | None
    challenger: str
    comparison: Comparison | None = None

    def to_json(self) -> dict[str, object]:
        """The decision as plain data."""
        return {
            "promoted": self.promoted,
            "reason": self.reason,
            "champion": self.champion,
            "challenger": self.challenger,
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


def promote(
    loaded: LoadedProject,
    model: hr.Model | str,
    version: str,
    *,
    registry: Registry | None = None,
    alias: str = CHAMPION,
    force: bool = False,
    effort: Effort | None = None,
) -> Decision:
    """Let a registered bundle through the gate; its hold-out is built again from the log.

    Args:
        loaded: the project.
        model: the model or its name.
        version: the challenger: a version or an alias.
        registry: where bundles lie; by default the project's.
        alias: which alias to move.
        force: move it without the gate.
        effort: how to use the machine.

    Raises:
        NotFound: an unknown model, version or alias.
    """
    model = loaded.project.model(model) if isinstance(model, str) else model
    registry = registry or Registry(loaded.settings.registry_path)
    challenger = registry.load(model.name, version)
    if force or _champion(registry, model, alias) is None or not serves(model, challenger.manifest):
        return pass_gate(model, registry, challenger, None, alias=alias, force=force)
    return pass_gate(model, registry, challenger, _holdout(loaded, model, challenger.manifest, effort), alias=alias)


def pass_gate(
    model: hr.Model,
    registry: Registry,
    challenger: Bundle,
    holdout: Holdout | None,
    *,
    alias: str = CHAMPION,
    force: bool = False,
    bootstrap: Bootstrap | None = None,
) -> Decision:
    """Decide, and move the alias if the answer is yes.

    Args:
        model: the definition, as it is now.
        registry: where bundles lie.
        challenger: the registered bundle that asks.
        holdout: rows to compare on, later than everything that the challenger was fitted on.
        alias: which alias to move.
        force: move it without the gate.
        bootstrap: how the interval of the improvement is made.
    """
    champion = _champion(registry, model, alias)
    before = None if champion is None else champion.version
    promoted, reason, comparison = _decide(model, champion, challenger, holdout, force, bootstrap)
    if promoted:
        registry.set_alias(model.name, alias, challenger.version)
    return Decision(promoted, reason, before, challenger.version, comparison)


def _decide(
    model: hr.Model,
    champion: Bundle | None,
    challenger: Bundle,
    holdout: Holdout | None,
    force: bool,
    bootstrap: Bootstrap | None,
) -> tuple[bool, str, Comparison | None]:
    if force:
        return True, "the gate was passed by, as asked", None
    if champion is not None and champion.version == challenger.version:
        return True, "it is the champion already", None
    if not serves(model, challenger.manifest):
        return False, "it was trained on other definitions than the project has now, so it could not be served", None
    skill = _skill(challenger.manifest)
    if skill is not None and not skill > 0:
        return False, f"it does not beat the constant baseline (skill {skill:.4f} must be above 0)", None
    if champion is None:
        return True, "it beats the constant baseline, and there is no champion yet", None
    if not serves(model, champion.manifest):
        return True, f"champion {champion.version} no longer fits the project's definitions and cannot be served", None
    if holdout is None:
        return False, "there are no rows to compare it with the champion on", None
    comparison = _compare(model, champion, challenger, holdout, bootstrap)
    gained = comparison.improvement
    verdict = "at least as good as" if gained.value >= 0 else "worse than"
    reason = (
        f"it is {verdict} champion {champion.version} on the same {comparison.rows} rows: {comparison.metric} "
        f"{comparison.challenger:.5f} against {comparison.champion:.5f}, improvement {gained.value:.5f} "
        f"({gained.low:.5f} to {gained.high:.5f}){_overlap(champion.manifest, holdout)}"
    )
    return gained.value >= 0, reason, comparison


def serves(model: hr.Model, manifest: Manifest) -> bool:
    """Whether a bundle fits a definition: serving refuses one that was trained on other inputs."""
    return manifest.fingerprints.inputs == model.input_fingerprint and manifest.task == model.task


def _champion(registry: Registry, model: hr.Model, alias: str) -> Bundle | None:
    try:
        return registry.load(model.name, alias)
    except NotFound:
        return None


def _compare(
    model: hr.Model, champion: Bundle, challenger: Bundle, holdout: Holdout, bootstrap: Bootstrap | None
) -> Comparison:
    task: Task = model.task
    old, new = (Runtime(bundle.onnx).run(holdout.inputs) for bundle in (champion, challenger))
    return compare(task, holdout.truth, old, new, at_us=holdout.at_us, bootstrap=bootstrap)


def _skill(manifest: Manifest) -> float | None:
    metrics: Any = manifest.metrics.get("metrics", {})
    value = metrics.get("skill", {}).get("value") if isinstance(metrics, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _overlap(champion: Manifest, holdout: Holdout) -> str:
    upto = champion.dataset.get("fitted_until_us")
    if isinstance(upto, int) and len(holdout.at_us) and upto > int(holdout.at_us.min()):
        return (
            "; the champion was fitted on some of these rows (up to "
            f"{datetime.fromtimestamp(upto / 1e6, UTC):%Y-%m-%d %H:%M}), which favours it"
        )
    return ""


def _holdout(loaded: LoadedProject, model: hr.Model, manifest: Manifest, effort: Effort | None) -> Holdout:
    facts: Mapping[str, Any] = manifest.dataset
    # A hold-out of served predictions is rebuilt in event time: what they saw does not depend on the model.
    mode: Mode = "event-time"
    dataset = build_dataset(
        loaded,
        model,
        from_us=facts.get("holdout_from_us"),
        until_us=facts.get("until_us"),
        mode=mode,
        lag_us=int(facts.get("lag_us", 0)),
        effort=effort,
    )
    return Holdout(dataset.inputs(model), dataset.truth, dataset.at_us)
