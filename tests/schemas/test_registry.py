"""The registry: immutable bundles, atomic visibility, aliases, and errors that say what to do."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import CodecError, ConfigError, NotFound, StoreError
from headrace_schemas.bundles import Fingerprints, GraphNames, InputSpec, Manifest, ViewPin
from headrace_schemas.stores import registry as module
from headrace_schemas.stores.registry import Registry

MANIFEST = Manifest(
    model="late",
    task="binary",
    fingerprints=Fingerprints(
        model="m1", inputs="i1", views={"weather": ViewPin(layout="l1", finalizers="f1")}, transforms={"gap": "t1"}
    ),
    inputs=(InputSpec("weather__wind_1h", "feature", "float"), InputSpec("carrier", "request", "string")),
    onnx=GraphNames(numeric_input="numeric", categorical_input="categorical"),
    metrics={"auc": 0.75, "interval": [0.7, 0.8]},
    dataset={"rows": 10, "hash": "abc"},
    onnx_max_difference=1e-7,
    created_at="2013-12-01T00:00:00Z",
    software={"headrace": "0.1.0"},
)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def test_a_bundle_comes_back_as_it_was_registered(registry: Registry) -> None:
    made = registry.register("late", b"graph", MANIFEST, alias="champion")
    assert registry.load("late") == made
    assert registry.load("late", made.version) == made
    assert (made.onnx, made.manifest) == (b"graph", MANIFEST)
    assert len(made.version) == 12


def test_the_same_content_is_the_same_version(registry: Registry) -> None:
    first = registry.register("late", b"graph", MANIFEST)
    assert registry.register("late", b"graph", MANIFEST) == first
    assert registry.versions("late") == (first.version,)


def test_other_content_is_another_version_listed_by_age(registry: Registry) -> None:
    versions = [registry.register("late", b"graph" * n, MANIFEST).version for n in (1, 2)]
    versions.append(registry.register("late", b"graph", replace(MANIFEST, created_at="2014-01-01T00:00:00Z")).version)
    assert len(set(versions)) == 3
    for age, version in enumerate(versions):
        os.utime(registry.path / "late" / version, ns=(age, age))
    assert registry.versions("late") == tuple(versions)


def test_an_alias_moves_at_once_and_keeps_the_others(registry: Registry) -> None:
    one = registry.register("late", b"1", MANIFEST, alias="champion").version
    two = registry.register("late", b"2", MANIFEST, alias="challenger").version
    assert registry.aliases("late") == {"champion": one, "challenger": two}
    registry.set_alias("late", "champion", "challenger")
    assert registry.load("late").version == two


def test_listing_shows_models_versions_and_aliases(registry: Registry) -> None:
    late = registry.register("late", b"1", MANIFEST, alias="champion")
    fraud = registry.register("fraud", b"2", replace(MANIFEST, model="fraud"))
    assert registry.models() == ("fraud", "late")
    assert [(item.model, item.version, item.aliases) for item in registry.list()] == [
        ("fraud", fraud.version, ()),
        ("late", late.version, ("champion",)),
    ]


def test_an_absent_registry_is_empty(registry: Registry) -> None:
    assert registry.list() == ()
    assert registry.leftovers() == ()
    with pytest.raises(NotFound, match="there is no registered model 'late'; none is declared"):
        registry.load("late")


def test_an_unknown_name_is_answered_with_what_exists(registry: Registry) -> None:
    registry.register("late", b"1", MANIFEST, alias="champion")
    with pytest.raises(NotFound, match="there is no registered model 'lat'; did you mean 'late'"):
        registry.load("lat")
    with pytest.raises(
        NotFound, match="there is no alias or version of model 'late' 'champoin'; did you mean 'champion'"
    ):
        registry.load("late", "champoin")


def test_a_registration_that_dies_leaves_nothing_visible(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill cannot clean up: what it leaves is never read, and reported."""

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "rename", die)
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(Killed):
        registry.register("late", b"graph", MANIFEST, alias="champion")
    monkeypatch.undo()
    assert registry.models() == ()
    (leftover,) = registry.leftovers()
    assert leftover.name.startswith(".half-written-")
    registry.register("late", b"graph", MANIFEST, alias="champion")
    assert registry.load("late").onnx == b"graph"


@pytest.mark.parametrize("file", ["model.onnx", "manifest.json"])
def test_a_changed_file_is_refused(registry: Registry, file: str) -> None:
    made = registry.register("late", b"graph", MANIFEST)
    target = made.path / file
    target.write_bytes(target.read_bytes() + b" ")
    with pytest.raises(StoreError, match=rf"must have digest {made.version}, but it has [0-9a-f]{{12}}.*restore it"):
        registry.load("late", made.version)


def test_a_missing_file_is_refused(registry: Registry) -> None:
    made = registry.register("late", b"graph", MANIFEST)
    (made.path / "model.onnx").unlink()
    with pytest.raises(StoreError, match=r"a bundle holds model\.onnx and manifest\.json, but No such file"):
        registry.load("late", made.version)


def test_an_alias_to_a_deleted_bundle_is_refused(registry: Registry) -> None:
    gone = registry.register("late", b"1", MANIFEST, alias="champion")
    kept = registry.register("late", b"2", MANIFEST)
    for file in gone.path.iterdir():
        file.unlink()
    gone.path.rmdir()
    with pytest.raises(StoreError, match=rf"alias 'champion' must point to a bundle.*{kept.version}"):
        registry.load("late")


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"champion": 3}'])
def test_a_broken_alias_file_is_refused(registry: Registry, content: bytes) -> None:
    registry.register("late", b"1", MANIFEST, alias="champion")
    (registry.path / "late" / "aliases.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"aliases\.json: it must hold versions by alias as JSON"):
        registry.load("late")


def test_an_unwritable_place_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    registry = Registry(tmp_path / "file" / "registry")
    with pytest.raises(
        StoreError, match=r"could not be written \(Not a directory\); nothing was changed; .*\[registry\] path"
    ):
        registry.register("late", b"1", MANIFEST)


def test_a_full_disk_leaves_no_trace(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        registry.register("late", b"1", MANIFEST)
    assert registry.models() == ()
    assert registry.leftovers() == ()


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a/b", "a" * 200])
def test_a_name_that_is_no_directory_is_refused(registry: Registry, name: str) -> None:
    with pytest.raises(ConfigError, match="the name of a model must be letters"):
        registry.register(name, b"1", MANIFEST)


def test_an_alias_that_looks_like_a_version_is_refused(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="an alias must not look like a version"):
        registry.register("late", b"1", MANIFEST, alias="0123456789ab")
    assert registry.models() == ()


def test_aliases_set_at_once_by_many_are_all_kept(registry: Registry) -> None:
    version = registry.register("late", b"1", MANIFEST).version
    names = [f"alias-{n}" for n in range(16)]
    threads = [threading.Thread(target=registry.set_alias, args=("late", name, version)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(registry.aliases("late")) == sorted(names)


def test_a_manifest_of_a_newer_format_is_refused() -> None:
    content = json.loads(MANIFEST.to_json())
    content["format"] = 2
    with pytest.raises(CodecError, match="its format 2 is newer than this program's 1; upgrade headrace here"):
        Manifest.from_json(json.dumps(content).encode())


def test_a_manifest_from_before_a_field_was_added_is_read() -> None:
    content = json.loads(MANIFEST.to_json())
    del content["reference"]
    assert Manifest.from_json(json.dumps(content).encode()) == MANIFEST


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"format": 1}', b'{"format": "1"}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CodecError, match="manifest"):
        Manifest.from_json(data)


def test_a_metric_that_is_no_json_is_refused() -> None:
    with pytest.raises(CodecError, match="every value must be JSON"):
        replace(MANIFEST, metrics={"auc": float("nan")}).to_json()
