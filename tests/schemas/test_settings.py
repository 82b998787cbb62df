"""Settings: one file, overriding variables, and errors that name the place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from headrace.errors import ConfigError
from headrace_schemas.settings import FILE_NAME, Settings, load_settings


def load(root: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    (root / FILE_NAME).write_text(text, encoding="utf-8")
    return load_settings(root, environ or {})


def refusal(root: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(root, text, environ)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_an_empty_file_gives_defaults_below_the_project(tmp_path: Path) -> None:
    root = tmp_path / "flights"
    root.mkdir()
    settings = load(root, "")
    assert (settings.name, settings.namespace, settings.definitions) == ("flights", "flights", "features.py")
    assert (settings.kafka, settings.redis) == ("localhost:9092", "redis://localhost:6379/0")
    assert settings.log_path == root / ".headrace/log"
    assert settings.registry_path == root / ".headrace/registry"
    assert settings.run_path == root / ".headrace/run"
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)


def test_every_key_of_the_file_is_read(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [project]
        name = "flights"
        definitions = "package.module"
        namespace = "flights.prod"
        [kafka]
        bootstrap_servers = "a:1,b:2"
        [schema_registry]
        url = "http://d:8081"
        [redis]
        url = "redis://c:3/1"
        [log]
        path = "/data/log"
        keep_days = 400
        [registry]
        path = "models"
        [run]
        path = "/run/headrace"
        [serving]
        host = "0.0.0.0"
        port = 80
        [stream]
        workers = 4
        wedged_s = 9
        metrics_host = "0.0.0.0"
        metrics_port = 9100
        cache_kb = 64
        """,
    )
    assert settings == Settings(
        name="flights",
        definitions="package.module",
        kafka="a:1,b:2",
        redis="redis://c:3/1",
        log_path=Path("/data/log"),
        registry_path=tmp_path / "models",
        run_path=Path("/run/headrace"),
        namespace="flights.prod",
        host="0.0.0.0",
        port=80,
        workers=4,
        wedged_s=9,
        metrics_host="0.0.0.0",
        metrics_port=9100,
        cache_kb=64,
        schema_registry="http://d:8081",
        log_keep_days=400,
    )


def test_a_variable_overrides_the_file(tmp_path: Path) -> None:
    environ = {
        "HEADRACE_KAFKA": "k:1",
        "HEADRACE_REDIS": "redis://r:2",
        "HEADRACE_LOG_PATH": "elsewhere",
        "HEADRACE_REGISTRY_PATH": "/registry",
        "HEADRACE_NAMESPACE": "ns",
        "HEADRACE_HOST": "::",
        "HEADRACE_PORT": "0",
        "HEADRACE_WORKERS": "3",
        "HEADRACE_RUN_PATH": "/run/x",
        "HOME": "/root",
    }
    settings = load(tmp_path, '[kafka]\nbootstrap_servers = "file:9"\n[serving]\nport = 81\n', environ)
    assert (settings.kafka, settings.redis, settings.namespace) == ("k:1", "redis://r:2", "ns")
    assert (settings.host, settings.port, settings.workers) == ("::", 0, 3)
    assert settings.log_path == tmp_path / "elsewhere"
    assert (settings.registry_path, settings.run_path) == (Path("/registry"), Path("/run/x"))


def test_an_empty_variable_is_no_setting(tmp_path: Path) -> None:
    assert load(tmp_path, '[kafka]\nbootstrap_servers = "file:9"\n', {"HEADRACE_KAFKA": ""}).kafka == "file:9"


def test_a_missing_file_names_the_directory_and_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a headrace\.toml, but there is none; .*`headrace init`") as caught:
        load_settings(tmp_path, {})
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[projct]\n", "there is no table [projct]; did you mean 'project'?"),
        ('[project]\nnmae = "x"\n', "there is no key 'nmae' in [project]; did you mean 'name'?"),
        ("kafka = 3\n", "[kafka] must be a table, but it is 3"),
        ("[project\n", "it must be TOML, but"),
        ("[serving]\nport = 99999\n", "[serving] port must be a whole number from 0 to 65535, but it is 99999"),
        ("[serving]\nport = true\n", "[serving] port must be a whole number from 0 to 65535, but it is True"),
        ("[stream]\nworkers = 0\n", "[stream] workers must be a whole number from 1 to 1024, but it is 0"),
        ("[kafka]\nbootstrap_servers = 3\n", "[kafka] bootstrap_servers must be a text, but it is 3"),
        ('[kafka]\nbootstrap_servers = ""\n', "[kafka] bootstrap_servers must be a text, but it is ''"),
        ('[project]\nnamespace = "a{b}"\n', "[project] namespace must be at most 100 letters"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    told = refusal(tmp_path, text)
    assert str(tmp_path / FILE_NAME) in told
    assert message in told


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="must be a readable text file"):
        load_settings(tmp_path, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"HEADRACE_KAFKAA": "x"}, "there is no variable HEADRACE_KAFKAA; did you mean 'HEADRACE_KAFKA'?"),
        ({"HEADRACE_PORT": "tcp://10.0.0.1:80"}, "variable HEADRACE_PORT must be a whole number from 0 to 65535"),
        ({"HEADRACE_NAMESPACE": "a b"}, "variable HEADRACE_NAMESPACE must be at most 100 letters"),
    ],
)
def test_a_wrong_variable_is_refused(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    assert message in refusal(tmp_path, "", environ)


def test_variables_of_other_parts_are_not_refused(tmp_path: Path) -> None:
    load(tmp_path, "", {"HEADRACE_PROJECT": "x", "HEADRACE_TEST_KAFKA": "y"})
