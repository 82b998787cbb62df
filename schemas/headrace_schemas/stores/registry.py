"""The model registry: immutable bundles in directories, and aliases that point to them.

::

    <registry>/<model>/<version>/model.onnx          never changed once it is visible
    <registry>/<model>/<version>/manifest.json
    <registry>/<model>/aliases.json                  {"champion": "<version>"}; replaced as a whole
    <registry>/<model>/.half-written-<random>/       a registration that died; ignored, and reported by `leftovers`

A version is the first twelve hex characters of a SHA-256 over graph and manifest, and every load checks it. A bundle is
written beside its place, flushed to disk, and renamed into it: a reader sees all of it or nothing. What may not live here:
what is inside a manifest (``bundles.py``), and any knowledge of ONNX.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ConfigError, NotFound, StoreError
from headrace_schemas.bundles import Manifest

CHAMPION = "champion"

_GRAPH, _MANIFEST, _ALIASES, _LOCK = "model.onnx", "manifest.json", "aliases.json", ".lock"
_HALF_WRITTEN = ".half-written-"
_VERSION = re.compile(r"[0-9a-f]{12}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """One registered model: its graph, its manifest, and where they lie."""

    model: str
    version: str
    path: Path
    onnx: bytes
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Listing:
    """One registered model without its graph, and the aliases that point to it."""

    model: str
    version: str
    path: Path
    manifest: Manifest
    aliases: tuple[str, ...]


class Registry:
    """The bundles below one directory, which is made by the first registration.

    Args:
        path: the registry's directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def register(self, model: str, onnx: bytes, manifest: Manifest, alias: str | None = None) -> Bundle:
        """Add a bundle; the same content again is the same version and changes nothing.

        Args:
            model: the model's name.
            onnx: the serialised graph.
            manifest: its manifest.
            alias: an alias to point at it once it is complete, such as ``champion``.

        Raises:
            ConfigError: the model's or the alias' name cannot be a directory's or is a version's.
            StoreError: the disk refused; nothing is visible then.
        """
        _check_name("model", model)
        if alias is not None:
            _check_alias(alias)
        content = manifest.to_json()
        version = digest(onnx, content)
        home = self.path / model
        place = home / version
        with _disk(f"bundle {version} of model {model!r}", home):
            home.mkdir(parents=True, exist_ok=True)
            if not place.is_dir():
                _write_bundle(home, place, onnx, content)
        if alias is not None:
            self.set_alias(model, alias, version)
        return Bundle(model=model, version=version, path=place, onnx=onnx, manifest=manifest)

    def load(self, model: str, version_or_alias: str = CHAMPION) -> Bundle:
        """A bundle by version or alias.

        Raises:
            NotFound: there is no such model, version or alias; the message names those that exist.
            StoreError: the files are not those that were registered.
            CodecError: the manifest is of a newer format.
        """
        version = self.resolve(model, version_or_alias)
        place = self.path / model / version
        try:
            onnx, content = (place / _GRAPH).read_bytes(), (place / _MANIFEST).read_bytes()
        except OSError as error:
            raise StoreError(
                f"{place}: a bundle holds {_GRAPH} and {_MANIFEST}, but {error.strerror or error}; "
                f"restore the directory from a copy, or train the model again"
            ) from error
        found = digest(onnx, content)
        if found != version:
            raise StoreError(
                f"{place}: its content must have digest {version}, but it has {found}: a file was changed or damaged; "
                f"restore it from a copy, or train the model again"
            )
        manifest = Manifest.from_json(content, what=str(place / _MANIFEST))
        return Bundle(model=model, version=version, path=place, onnx=onnx, manifest=manifest)

    def resolve(self, model: str, version_or_alias: str = CHAMPION) -> str:
        """The version that a version or an alias names now."""
        versions = self.versions(model)
        if not versions:
            raise NotFound("registered model", model, self.models())
        if version_or_alias in versions:
            return version_or_alias
        aliases = self.aliases(model)
        if version_or_alias not in aliases:
            raise NotFound(f"alias or version of model {model!r}", version_or_alias, [*aliases, *versions])
        version = aliases[version_or_alias]
        if version not in versions:
            raise StoreError(
                f"{self.path / model / _ALIASES}: alias {version_or_alias!r} must point to a bundle, but {version} is not "
                f"there; point it to one of {', '.join(versions)} with `headrace promote`"
            )
        return version

    def models(self) -> tuple[str, ...]:
        """Names of the models that have at least one bundle, sorted."""
        return tuple(entry.name for entry in _directories(self.path) if self.versions(entry.name))

    def versions(self, model: str) -> tuple[str, ...]:
        """Versions of a model, oldest registration first; empty if there is no such model."""
        _check_name("model", model)
        places = [entry for entry in _directories(self.path / model) if _VERSION.fullmatch(entry.name)]
        return tuple(place.name for place in sorted(places, key=lambda place: (place.stat().st_mtime_ns, place.name)))

    def aliases(self, model: str) -> dict[str, str]:
        """Versions by alias.

        Raises:
            StoreError: the alias file is not readable.
        """
        file = self.path / model / _ALIASES
        try:
            content = json.loads(file.read_bytes())
            if not isinstance(content, dict) or not all(isinstance(version, str) for version in content.values()):
                raise ValueError("it is not an object of texts")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{file}: it must hold versions by alias as JSON, but {error}; mend it by hand, or delete it and promote again"
            ) from error
        return dict(sorted(content.items()))

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias at a version, at once for every reader.

        Raises:
            NotFound: there is no such version.
            ConfigError: the alias' name looks like a version.
            StoreError: the disk refused; the alias stays as it was.
        """
        _check_alias(alias)
        target = self.resolve(model, version)
        home = self.path / model
        with _disk(f"alias {alias!r} of model {model!r}", home), _locked(home):
            aliases = {**self.aliases(model), alias: target}
            _replace(home / _ALIASES, (json.dumps(aliases, indent=1, sort_keys=True) + "\n").encode())

    def list(self) -> tuple[Listing, ...]:
        """Every bundle, by model and age."""
        return tuple(listing for model in self.models() for listing in self._listings(model))

    def leftovers(self) -> tuple[Path, ...]:
        """Directories of registrations that died half-way (or are being written now). Nothing ever reads them."""
        return tuple(
            entry
            for home in _directories(self.path)
            for entry in _directories(home)
            if entry.name.startswith(_HALF_WRITTEN)
        )

    def _listings(self, model: str) -> Iterator[Listing]:
        aliases: Mapping[str, str] = self.aliases(model)
        for version in self.versions(model):
            place = self.path / model / version
            yield Listing(
                model=model,
                version=version,
                path=place,
                manifest=self.load(model, version).manifest,
                aliases=tuple(alias for alias, target in aliases.items() if target == version),
            )


def digest(onnx: bytes, manifest: bytes) -> str:
    """The version of a bundle: twelve hex characters over its two files."""
    inner = hashlib.sha256(onnx).digest() + hashlib.sha256(manifest).digest()
    return hashlib.sha256(inner).hexdigest()[:12]


def _write_bundle(home: Path, place: Path, onnx: bytes, manifest: bytes) -> None:
    draft = home / f"{_HALF_WRITTEN}{secrets.token_hex(8)}"
    draft.mkdir()
    try:
        _write(draft / _GRAPH, onnx)
        _write(draft / _MANIFEST, manifest)
        _flush_directory(draft)
        try:
            draft.rename(place)
        except OSError:
            # The same content was registered by someone else in the meantime; any other reason is an error.
            if not place.is_dir():
                raise
        _flush_directory(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _replace(file: Path, content: bytes) -> None:
    draft = file.with_name(f".{file.name}-{secrets.token_hex(8)}")
    try:
        _write(draft, content)
        draft.replace(file)
        _flush_directory(file.parent)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: Path, content: bytes) -> None:
    with file.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _flush_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / _LOCK).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _disk(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: {what} could not be written ({error.strerror or error}); nothing was changed; "
            f"free space or mend the directory's permissions, or set [registry] path to another directory"
        ) from error


def _directories(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(
            f"{path}: the registry must be readable, but {error.strerror or error}; mend its permissions"
        ) from error


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"registry: the name of {'an' if kind == 'alias' else 'a'} {kind} must be letters, digits, dots, dashes or "
            f"underscores, because it names a file or a directory, but it is {name!r}; choose a plain name"
        )


def _check_alias(alias: str) -> None:
    _check_name("alias", alias)
    if _VERSION.fullmatch(alias):
        raise ConfigError(
            f"registry: an alias must not look like a version, but it is {alias!r}; choose a name such as 'champion'"
        )
