"""What immutable definitions are made of: a hashable mapping, and the names they may bear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeVar

from headrace.errors import DefinitionError, Location
from headrace.fingerprints import canonical_json

K = TypeVar("K")
V_co = TypeVar("V_co", covariant=True)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")
_NAME_LENGTH = 64


class FrozenMap(Mapping[K, V_co]):
    """A mapping that cannot change and keeps its order.

    >>> names = FrozenMap({"airport": "origin"})
    >>> names["airport"], len(names), names == {"airport": "origin"}
    ('origin', 1, True)
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[K, V_co]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: K) -> V_co:
        return self._items[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(tuple(self._items.items()))

    def __repr__(self) -> str:
        return repr(self._items)

    def __reduce__(self) -> tuple[object, ...]:
        return FrozenMap, (self._items,)


class Definition:
    """A declaration: it has a name and a place, and equals whatever declares the same meaning.

    Equality compares ``canonical()``; comments, descriptions and the place of the declaration do not enter. The hash is the
    name's, so that a definition may key a cache from which its own fingerprint is computed.
    """

    __slots__ = ("_meaning",)

    kind: ClassVar[str]
    name: str
    location: Location
    _meaning: str

    @property
    def subject(self) -> str:
        """How messages call this definition: ``feature view 'weather'``."""
        return f"{self.kind} {self.name!r}"

    def canonical(self) -> object:
        """The meaning as JSON-able data."""
        raise NotImplementedError

    def broken(self, required: str, got: str, remedy: str) -> DefinitionError:
        """An error of this definition, at the line where it is written."""
        return DefinitionError(required=required, got=got, remedy=remedy, subject=self.subject, where=self.location)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Definition) or type(self) is not type(other) or self.name != other.name:
            return False
        return self._canonical_text() == other._canonical_text()

    def __hash__(self) -> int:
        return hash((self.kind, self.name))

    def __repr__(self) -> str:
        # Without the place: it may end up in what is compared or hashed.
        return f"<{self.subject}>"

    def _canonical_text(self) -> str:
        # Written down once: a definition keys caches that are asked on every request.
        try:
            text: str = self._meaning
        except AttributeError:
            text = canonical_json(self.canonical())
            self._set(_meaning=text)
        return text

    def _set(self, **values: object) -> None:
        # The constructors of the frozen definitions end here; nothing else may write.
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _check_name(self, *, joins_names: bool = False) -> None:
        check_name(self.name, self.subject, self.location, joins_names=joins_names)


def is_a(value: object, *kinds: type) -> bool:
    """Whether a value is of one of these types; asked of arguments whose annotation only a type checker enforces."""
    return isinstance(value, kinds)


def check_name(name: object, subject: str, where: Location, *, joins_names: bool = False) -> None:
    """A name is an identifier of at most 64 characters: it becomes part of topics, keys, columns and URLs.

    Args:
        name: what was declared.
        subject: whose name it is.
        where: the user's line.
        joins_names: whether it is joined to others by two underscores, which it must then not hold itself.
    """
    if not isinstance(name, str):
        raise DefinitionError(
            required="a name is a string",
            got=f"{name!r} was given",
            remedy="write the name first, in quotes",
            subject=subject,
            where=where,
        )
    if not _NAME.match(name) or len(name) > _NAME_LENGTH:
        raise DefinitionError(
            required="a name starts with a letter and holds at most 64 letters, digits and underscores",
            got=f"{name!r} was given",
            remedy="rename it",
            subject=subject,
            where=where,
        )
    if joins_names and "__" in name:
        raise DefinitionError(
            required="two underscores stand between a view's name and its feature's, so neither holds them itself",
            got=f"{name!r} was given",
            remedy=f"write {name.replace('__', '_')!r}",
            subject=subject,
            where=where,
        )
