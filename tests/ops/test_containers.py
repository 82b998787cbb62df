"""The container files hold together, as far as that can be known without a container engine."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from headrace_ops.cli import main
from headrace_schemas.settings import load_settings
from tests.containers import KAFKA_IMAGE, REDIS_IMAGE

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "ops" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_the_three_pipelines_are_separate_services() -> None:
    assert {SERVICES[name]["command"][0] for name in OURS} == {"apply", "stream", "train", "serve"}
    assert set(SERVICES) == {"kafka", "redis", *OURS}


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_names_its_version(name: str) -> None:
    tag = SERVICES[name]["image"].partition(":")[2]
    assert tag
    assert tag != "latest"


def test_compose_and_the_tests_run_the_same_kafka_and_redis() -> None:
    assert SERVICES["kafka"]["image"] == KAFKA_IMAGE
    assert SERVICES["redis"]["image"] == REDIS_IMAGE
    version = re.search(r"^KAFKA_VERSION := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert version is not None
    assert KAFKA_IMAGE.endswith(f":{version.group(1)}")


@pytest.mark.parametrize("name", OURS)
def test_a_pipelines_image_installs_its_own_extra(name: str) -> None:
    build = SERVICES[name]["build"]
    extra = build["args"]["EXTRAS"]
    assert extra in EXTRAS
    assert SERVICES[name]["image"] == f"headrace:{extra}"
    assert (ROOT / build["context"] / build["dockerfile"]).samefile(ROOT / "ops" / "Dockerfile")
    assert re.search(r"^ARG EXTRAS=(\w+)$", DOCKERFILE, re.MULTILINE)


@pytest.mark.parametrize("name", OURS)
def test_a_pipelines_command_and_its_options_exist(name: str) -> None:
    command, *arguments = SERVICES[name]["command"]
    found = main.get_command(click.Context(main), command)
    assert found is not None
    found.make_context(command, list(arguments))


@pytest.mark.parametrize("name", OURS)
def test_a_pipelines_variables_are_settings_that_it_reads(name: str, tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('[project]\nname = "mine"\n')
    environment = SERVICES[name]["environment"]
    settings = load_settings(tmp_path, environment)
    assert settings.kafka == "kafka:19092"
    assert settings.redis == "redis://redis:6379/0"
    assert settings.log_path == Path("/data/log")
    assert settings.registry_path == Path("/data/registry")


def test_pipelines_reach_kafka_by_the_name_that_it_advertises_to_them() -> None:
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    inside = COMPOSE["x-pipeline"]["environment"]["HEADRACE_KAFKA"]
    assert f"INTERNAL://{inside}" in advertised
    assert "EXTERNAL://localhost:9092" in advertised
    assert SERVICES["kafka"]["ports"] == ["127.0.0.1:9092:9092"]


def test_every_kafka_listener_has_a_protocol_and_the_internal_topics_one_replica() -> None:
    kafka = SERVICES["kafka"]["environment"]
    protocols = dict(pair.split(":") for pair in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert {listener.partition(":")[0] for listener in kafka["KAFKA_LISTENERS"].split(",")} == set(protocols)
    factors = {name: value for name, value in kafka.items() if name.endswith(("REPLICATION_FACTOR", "MIN_ISR"))}
    assert len(factors) == 5
    assert set(factors.values()) == {"1"}


def test_redis_never_evicts() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_the_service_listens_where_its_port_is_published_and_its_health_is_asked() -> None:
    serve = SERVICES["serve"]
    port = serve["environment"]["HEADRACE_PORT"]
    assert serve["environment"]["HEADRACE_HOST"] == "0.0.0.0"
    assert serve["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://localhost:{port}/health/live" in serve["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["kafka", "redis", "serve"])
def test_a_server_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", OURS)
def test_a_pipeline_waits_for_healthy_services_and_shares_the_data(name: str) -> None:
    service = SERVICES[name]
    servers = {"kafka": {"condition": "service_healthy"}, "redis": {"condition": "service_healthy"}}
    applied = {} if name == "apply" else {"apply": {"condition": "service_completed_successfully"}}
    assert service["depends_on"] == servers | applied
    assert "data:/data" in service["volumes"]
    assert {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith("$")} <= set(
        COMPOSE["volumes"]
    )


def test_the_default_project_exists() -> None:
    project = re.search(r"\$\{PROJECT:-(.+?)\}", COMPOSE["x-pipeline"]["volumes"][0])
    assert project is not None
    assert (ROOT / project.group(1)).is_dir()


def test_published_ports_are_on_loopback() -> None:
    for service in SERVICES.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_contains_what_the_build_needs_and_runs_as_nobody_special() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for path in [*needed["only-include"], "pyproject.toml", "README.md", "LICENSE"]:
        assert any(Path(path).is_relative_to(keep) for keep in kept), f"{path} does not reach the image's build"
    assert re.search(r"^USER headrace$", DOCKERFILE, re.MULTILINE)
    assert shlex.split(DOCKERFILE.split("ENTRYPOINT ")[1].splitlines()[0].strip("[]")) == ["headrace"]


def test_every_base_image_is_pinned_to_a_python_that_is_supported() -> None:
    version = re.search(r"^ARG PYTHON_VERSION=3\.(11|12)\.\d+$", DOCKERFILE, re.MULTILINE)
    assert version is not None
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases
    assert all(base == "python:${PYTHON_VERSION}-slim-bookworm" for base in bases)
