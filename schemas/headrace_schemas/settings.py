"""Settings of a project: one file, ``headrace.toml``, and ``HEADRACE_…`` variables that override it.

A setting comes from its variable, else from the file, else from its default. A key that nobody reads is an error, because a
misspelt key would otherwise be a silent default. Relative paths start at the project's directory, whatever the working
directory is. What may not live here: reading definitions, connecting to anything.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ConfigError
from headrace.suggestions import did_you_mean

FILE_NAME = "headrace.toml"

# Kafka topic characters; braces would also break the hash tags of Redis keys.
_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the parts of one running project meet.

    Args:
        name: the project's name.
        definitions: what to load: a file in the project's directory, or an importable module.
        kafka: bootstrap servers, comma-separated.
        redis: URL of the online store.
        log_path: directory of the Delta tables.
        registry_path: directory of the model bundles.
        run_path: directory of what running programs leave beside them: logs, sockets, reports.
        namespace: prefix of every topic and key that Headrace itself creates; two namespaces never meet.
        host: address that the service listens on.
        port: its port.
        workers: workers of one stream group.
        wedged_s: seconds without progress after which a worker process is ended and its group started again; 0 for never.
        metrics_host: address on which pipelines answer Prometheus.
        metrics_port: the first worker's port for that; the next ones follow, the log writer last. 0 for none.
        cache_kb: kilobytes of states that each worker keeps for a view beside the store; more is read again when needed.
        schema_registry: URL of the schema registry; empty for none.
        log_keep_days: days after their arrival for which rows stay in the log; 0 for ever.
    """

    name: str
    definitions: str
    kafka: str
    redis: str
    log_path: Path
    registry_path: Path
    run_path: Path
    namespace: str
    host: str
    port: int
    workers: int
    wedged_s: int
    metrics_host: str
    metrics_port: int
    cache_kb: int
    schema_registry: str = ""
    log_keep_days: int = 0


@dataclass(frozen=True, slots=True)
class _Setting:
    """One setting: its place in the file, its variable and its default text."""

    table: str
    key: str
    variable: str | None
    default: str | int | None

    @property
    def place(self) -> str:
        return f"[{self.table}] {self.key}"


_SETTINGS = {
    "name": _Setting("project", "name", None, None),
    "definitions": _Setting("project", "definitions", None, "features.py"),
    "namespace": _Setting("project", "namespace", "HEADRACE_NAMESPACE", None),
    "kafka": _Setting("kafka", "bootstrap_servers", "HEADRACE_KAFKA", "localhost:9092"),
    "schema_registry": _Setting("schema_registry", "url", "HEADRACE_SCHEMA_REGISTRY", ""),
    "redis": _Setting("redis", "url", "HEADRACE_REDIS", "redis://localhost:6379/0"),
    "log_path": _Setting("log", "path", "HEADRACE_LOG_PATH", ".headrace/log"),
    "log_keep_days": _Setting("log", "keep_days", "HEADRACE_LOG_KEEP_DAYS", 0),
    "registry_path": _Setting("registry", "path", "HEADRACE_REGISTRY_PATH", ".headrace/registry"),
    "run_path": _Setting("run", "path", "HEADRACE_RUN_PATH", ".headrace/run"),
    "host": _Setting("serving", "host", "HEADRACE_HOST", "127.0.0.1"),
    "port": _Setting("serving", "port", "HEADRACE_PORT", 8000),
    "workers": _Setting("stream", "workers", "HEADRACE_WORKERS", 1),
    "wedged_s": _Setting("stream", "wedged_s", "HEADRACE_WEDGED_S", 30),
    "metrics_host": _Setting("stream", "metrics_host", "HEADRACE_METRICS_HOST", "127.0.0.1"),
    "metrics_port": _Setting("stream", "metrics_port", "HEADRACE_METRICS_PORT", 0),
    "cache_kb": _Setting("stream", "cache_kb", "HEADRACE_CACHE_KB", 262_144),
}
_VARIABLES = {setting.variable: setting for setting in _SETTINGS.values() if setting.variable}
# Read by other parts: the command line's project, and the test suite's services.
_OTHER_VARIABLES = ("HEADRACE_PROJECT", "HEADRACE_TEST_")


def load_settings(root: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the project in `root`.

    Args:
        root: the project's directory; it holds ``headrace.toml``.
        environ: the environment, of which only ``HEADRACE_…`` variables are read.

    Raises:
        ConfigError: the file is missing or not TOML, a key or a variable is unknown, or a value is of the wrong kind.
    """
    root = Path(root)
    file = root / FILE_NAME
    tables = _read(file)
    _refuse_unknown(file, tables)
    _refuse_unknown_variables(environ)
    found = {name: _value(setting, file, tables, environ) for name, setting in _SETTINGS.items()}

    def text(name: str) -> str:
        return _text(*found[name], default=_SETTINGS[name].default)

    name = _text(*found["name"], default=root.resolve().name)
    return Settings(
        name=name,
        definitions=text("definitions"),
        kafka=text("kafka"),
        schema_registry=text("schema_registry"),
        log_keep_days=_integer(*found["log_keep_days"], default=_SETTINGS["log_keep_days"].default, low=0, high=36_500),
        redis=text("redis"),
        log_path=_path(root, text("log_path")),
        registry_path=_path(root, text("registry_path")),
        run_path=_path(root, text("run_path")),
        namespace=_namespace(*found["namespace"], default=name),
        host=text("host"),
        port=_integer(*found["port"], default=_SETTINGS["port"].default, low=0, high=65535),
        workers=_integer(*found["workers"], default=_SETTINGS["workers"].default, low=1, high=1024),
        wedged_s=_integer(*found["wedged_s"], default=_SETTINGS["wedged_s"].default, low=0, high=86_400),
        metrics_host=text("metrics_host"),
        metrics_port=_integer(*found["metrics_port"], default=_SETTINGS["metrics_port"].default, low=0, high=64_000),
        cache_kb=_integer(*found["cache_kb"], default=_SETTINGS["cache_kb"].default, low=1, high=2**30),
    )


def _read(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{file.parent}: a project directory holds a {FILE_NAME}, but there is none; "
            f"name the project with -p, or make one with `headrace init`"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: it must be TOML, but {error}; mend that line") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file}: it must be a readable text file, but {error}; mend its permissions or content"
        ) from None


def _refuse_unknown(file: Path, tables: Mapping[str, object]) -> None:
    known_tables = sorted({setting.table for setting in _SETTINGS.values()})
    for table, content in tables.items():
        if table not in known_tables:
            raise ConfigError(f"{file}: there is no table [{table}]; {did_you_mean(table, known_tables)}")
        if not isinstance(content, Mapping):
            raise ConfigError(f"{file}: [{table}] must be a table, but it is {content!r}; write it as [{table}]")
        known = [setting.key for setting in _SETTINGS.values() if setting.table == table]
        for key in content:
            if key not in known:
                raise ConfigError(f"{file}: there is no key {key!r} in [{table}]; {did_you_mean(key, known)}")


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    for variable in environ:
        if (
            variable.startswith("HEADRACE_")
            and variable not in _VARIABLES
            and not variable.startswith(_OTHER_VARIABLES)
        ):
            raise ConfigError(
                f"environment: there is no variable {variable}; {did_you_mean(variable, [str(v) for v in _VARIABLES])}"
            )


def _value(
    setting: _Setting, file: Path, tables: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[object | None, str]:
    """The value as found, and the place to name in a message about it."""
    if setting.variable and environ.get(setting.variable):
        return environ[setting.variable], f"variable {setting.variable}"
    table = tables.get(setting.table, {})
    assert isinstance(table, Mapping)
    return table.get(setting.key), f"{file}: {setting.place}"


def _text(value: object | None, place: str, *, default: object) -> str:
    if value is None:
        return str(default)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{place} must be a text, but it is {value!r}; put a non-empty text in quotes")
    return value


def _integer(value: object | None, place: str, *, default: object, low: int, high: int) -> int:
    value = default if value is None else value
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,10}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"{place} must be a whole number from {low} to {high}, but it is {value!r}; correct it")
    return value


def _namespace(value: object | None, place: str, *, default: str) -> str:
    namespace = _text(value, place, default=default)
    if not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"{place} must be at most 100 letters, digits, dots, dashes or underscores, because topics and keys begin "
            f"with it, but it is {namespace!r}; choose a plain name"
        )
    return namespace


def _path(root: Path, text: str) -> Path:
    return (root / Path(text).expanduser()).absolute()
