"""Which bundle serves which model: loading, refusing, and swapping while requests run.

Each model follows one alias of the registry. A bundle is loaded, checked against the project's definitions and warmed before
it takes over; the take-over is one assignment, so a request sees the old predictor or the new one, whole. A bundle that does
not fit is refused with its reason, and whatever served before goes on serving.

    watching ──▶ alias points to another version ──▶ load, check, warm (in a thread) ──▶ swap
                                                          └─ refused: reason kept, old one stays

What may not live here: HTTP, and what a predictor does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from headrace.errors import CodecError, HeadraceError, NotFound
from headrace_schemas.stores.registry import CHAMPION, Bundle, Registry
from headrace_serving.logs import LOGGER
from headrace_serving.pins import Misfit

_log = logging.getLogger(LOGGER)


class Served(Protocol):
    """What hosting knows of a predictor."""

    @property
    def version(self) -> str:
        """The bundle's version."""


ServedT = TypeVar("ServedT", bound=Served)


@dataclass(frozen=True, slots=True)
class Refused:
    """Why the bundle that a model's alias points to does not serve.

    Attributes:
        reason: the message, for people.
        version: the refused version; None if there is none to refuse.
    """

    reason: str
    version: str | None


class Hosting(Generic[ServedT]):
    """The predictors of a project's models.

    Args:
        registry: where bundles come from.
        models: names of the models to serve.
        build: makes a checked and warmed predictor of a bundle; raises HeadraceError where the bundle does not fit.
        alias: which version of each model to follow.
        on_swap: called with the model's name after each take-over.
    """

    def __init__(
        self,
        registry: Registry,
        models: Iterable[str],
        build: Callable[[Bundle], ServedT],
        *,
        alias: str = CHAMPION,
        on_swap: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._registry, self._build, self._on_swap = registry, build, on_swap
        self.alias = alias
        self.models = tuple(models)
        self.serving: dict[str, ServedT] = {}
        self.refused: dict[str, Refused] = {}

    def load(self) -> None:
        """Bring every model to the version that its alias names now. Blocking: for the start and for threads."""
        for model in self.models:
            self._adopt(model, self._candidate(model))

    async def watch(self, interval_s: float) -> None:
        """Follow the aliases until cancelled; disk and compilation stay off the event loop."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(interval_s)
            for model in self.models:
                self._adopt(model, await loop.run_in_executor(None, self._candidate, model))

    def _candidate(self, model: str) -> ServedT | Refused | None:
        """The predictor that should take over, why it must not, or None if nothing has changed."""
        version: str | None = None
        try:
            version = self._registry.resolve(model, self.alias)
            serving, refused = self.serving.get(model), self.refused.get(model)
            if serving is not None and serving.version == version:
                return serving
            if refused is not None and refused.version == version:
                return None  # a bundle never changes, so what did not fit will not fit
            return self._build(self._registry.load(model, version))
        except NotFound as error:
            return Refused(f"{error}; train and register it with `headrace train {model}`", None)
        except (Misfit, CodecError) as error:
            return Refused(str(error), version)
        except HeadraceError as error:
            # A damaged file may be restored: it is looked at again, so its version is not remembered as refused.
            return Refused(str(error), None)
        except Exception as error:  # noqa: BLE001  (whatever one bundle does must not stop the other models)
            _log.exception("model %s: its bundle failed to load", model)
            return Refused(f"its bundle failed to load: {type(error).__name__}: {error}", version)

    def _adopt(self, model: str, candidate: ServedT | Refused | None) -> None:
        if candidate is None:
            return
        if isinstance(candidate, Refused):
            if self.refused.get(model) != candidate:
                _log.error(
                    "model %s: %s",
                    model,
                    candidate.reason,
                    extra={"facts": {"event": "refused", "model": model, "version": candidate.version}},
                )
            self.refused[model] = candidate
            return
        self.refused.pop(model, None)
        if self.serving.get(model) is candidate:
            return
        self.serving[model] = candidate
        self._on_swap(model)
        facts = {"event": "model", "model": model, "version": candidate.version}
        _log.info("model %s: version %s serves", model, candidate.version, extra={"facts": facts})
