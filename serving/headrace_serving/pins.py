"""Does a bundle fit the project's definitions? Every difference that could change a served value is a refusal.

A bundle pins the fingerprints of what it was trained on. Serving it on other definitions would compute other features under
the same names, which is the skew that this platform promises not to have.
"""

from __future__ import annotations

from collections.abc import Iterator

import headrace as hr
from headrace.errors import ConfigError
from headrace_schemas.bundles import InputSpec, Manifest


class Misfit(ConfigError):  # noqa: N818  (it reads as a sentence where it is raised and caught)
    """A bundle was trained on other definitions than those that are loaded.

    Attributes:
        model: the model's name.
        differences: what differs, as clauses.
        version: the bundle's version; it can never fit these definitions.
    """

    def __init__(self, model: str, version: str, differences: tuple[str, ...]) -> None:
        self.model, self.version, self.differences = model, version, differences
        super().__init__(
            f"model {model!r} version {version} was trained on other definitions: {'; '.join(differences)}. "
            f"Train again with `headrace train {model}`, or restore the definitions that it was trained on"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return Misfit, (self.model, self.version, self.differences)


def check_fit(model: hr.Model, version: str, manifest: Manifest) -> None:
    """Refuse a bundle that does not fit.

    Args:
        model: the definition.
        version: the bundle's version, for the message.
        manifest: the bundle's manifest.

    Raises:
        Misfit: names every view, transform and input that differs.
    """
    differences = tuple(_differences(model, manifest))
    if differences:
        raise Misfit(model.name, version, differences)


def _differences(model: hr.Model, manifest: Manifest) -> Iterator[str]:
    pinned = manifest.fingerprints
    if manifest.model != model.name:
        yield f"it is a bundle of model {manifest.model!r}"
    inputs = tuple(InputSpec(each.name, each.kind, each.dtype) for each in model.inputs)
    if inputs != manifest.inputs:
        yield f"its inputs are {_names(inputs)} and were {_names(manifest.inputs)}"
    views = {lookup.view.name: lookup.view for lookup in model.lookups}
    for name, view in views.items():
        pin = pinned.views.get(name)
        if pin is None:
            yield f"feature view {name!r} was not among its views"
        elif pin.layout != view.layout_fingerprint:
            yield f"feature view {name!r} has layout {view.layout_fingerprint} and had {pin.layout}"
    if pinned.inputs != model.input_fingerprint:
        yield from _changed_values(model, manifest)


def _changed_values(model: hr.Model, manifest: Manifest) -> Iterator[str]:
    """What may be behind changed inputs; a further feature of a view is not, as long as the model does not read it."""
    pinned = manifest.fingerprints
    for view in dict.fromkeys(lookup.view for lookup in model.lookups):
        pin = pinned.views.get(view.name)
        if pin is not None and pin.finalizers != view.finalizer_fingerprint:
            yield f"the features of view {view.name!r} are declared otherwise"
    for transform in model.transforms:
        if pinned.transforms.get(transform.name) != transform.fingerprint:
            yield f"on-demand transform {transform.name!r} is another one"
    yield f"the fingerprint of its inputs is {model.input_fingerprint} and was {pinned.inputs}"


def _names(inputs: tuple[InputSpec, ...]) -> str:
    return ", ".join(f"{each.name} ({each.dtype})" for each in inputs)
