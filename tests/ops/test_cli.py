"""The command line: help, exit codes, messages, JSON; with services where a command needs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from headrace_ops.cli import main
from tests.services import Services

FLIGHTS = str(Path(__file__).parents[2] / "examples" / "flights")
COMMANDS = [name for commands in main.sections.values() for name in commands]
SERVERS = {"dev", "stream", "serve"}

ORDERS = """
import headrace as hr

orders = hr.Event("orders", topic="{prefix}orders", time="at", id="id", format="json",
                  fields={{"id": hr.string(), "at": hr.timestamp(), "customer": hr.int64(), "amount": hr.float64(ge=0)}})
customer = hr.Entity("customer", keys={{"customer": hr.int64()}})
customer_orders = hr.FeatureView("customer_orders", entity=customer, event=orders,
                                 features={{"orders": hr.count().over("1h")}})
"""


def run(*arguments: str, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(main, list(arguments), env=env)


def told(result: Result) -> str:
    return result.stderr + result.stdout


@pytest.fixture
def shop(tmp_path: Path, prefix: str) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    (root / "headrace.toml").write_text('[project]\nname = "shop"\n', encoding="utf-8")
    (root / "features.py").write_text(ORDERS.format(prefix=prefix), encoding="utf-8")
    return root


def at(services: Services, prefix: str) -> dict[str, str | None]:
    return {"HEADRACE_KAFKA": services.kafka, "HEADRACE_REDIS": services.redis, "HEADRACE_NAMESPACE": prefix.strip(".")}


def test_help_lists_every_command_and_imports_neither_commands_nor_engines() -> None:
    program = (
        "import sys\nfrom headrace_ops.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert e.code == 0\n"
        "heavy = {'headrace', 'numpy', 'numba', 'polars', 'rich', 'confluent_kafka', 'redis', 'sklearn', 'fastapi'}\n"
        "print(sorted(heavy & set(sys.modules)), [m for m in sys.modules if m.endswith('_command')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in COMMANDS)
    assert done.stdout.strip().endswith("[] []")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_speaks_json(name: str) -> None:
    command = main.get_command(click.Context(main), name)
    parts = [[name, part] for part in command.commands] if isinstance(command, click.Group) else [[name]]
    for words in parts:
        result = run(*words, "--help")
        assert result.exit_code == 0
        assert re.search(rf"Example:\n\s+headrace {' '.join(words)}\b", result.stdout)
        assert ("--json" in result.stdout) == (name not in SERVERS)


def test_an_unknown_command_names_the_nearest_one() -> None:
    result = run("chek")
    assert result.exit_code == 2
    assert "there is no command 'chek'; did you mean 'check'?" in told(result)


def test_version() -> None:
    assert run("--version").stdout.startswith("headrace 0.")


def test_check_says_what_there_is() -> None:
    result = run("check", "-p", FLIGHTS, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["events"] == ["arrivals", "departures", "weather"]
    assert sum(map(len, found["views"].values())) == 40
    assert "all is well" in run("check", "-p", FLIGHTS).stdout


def test_check_prints_the_schema_of_an_event_for_other_producers() -> None:
    schema = json.loads(run("check", "-p", FLIGHTS, "--schema", "weather").stdout)
    assert [field["name"] for field in schema["fields"]][:3] == ["report_id", "observed_at", "origin"]


def test_check_names_file_line_and_remedy_and_ends_with_1(shop: Path) -> None:
    text = (shop / "features.py").read_text(encoding="utf-8")
    (shop / "features.py").write_text(text.replace("hr.count()", 'hr.sum("amuont")'), encoding="utf-8")
    result = run("check", "-p", str(shop))
    assert result.exit_code == 1
    assert "features.py:7" in told(result)
    assert "did you mean 'amount'?" in told(result)


def test_no_project_is_wrong_use_also_in_json() -> None:
    result = run("check", "-p", "/nowhere", "--json")
    assert result.exit_code == 2
    error = json.loads(result.stdout)["error"]
    assert error["kind"] == "ConfigError"
    assert error["exit_code"] == 2
    assert "/nowhere" in error["message"]


def test_a_missing_broker_ends_with_3_and_names_its_address(shop: Path) -> None:
    result = run("status", "-p", str(shop), env={"HEADRACE_KAFKA": "127.0.0.1:1"})
    assert result.exit_code == 3
    assert "Kafka at 127.0.0.1:1 does not answer" in told(result)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(project: str | None) -> None:
        raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")

    command = main.get_command(click.Context(main), "check")
    assert command is not None
    monkeypatch.setattr(sys.modules["headrace_ops.cli.check_command"], "load", lost)
    result = run("check")
    assert result.exit_code == 2
    assert "needs the package 'fastapi'" in told(result)
    assert "pip install 'headrace[serving]'" in told(result)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [("yesterday", "required a time such as 2013-12-01"), ("2013-12-01T06:00:00", "required a time with its zone")],
)
def test_a_time_that_is_none_is_refused(shop: Path, given: str, complaint: str) -> None:
    result = run("features", "customer_orders", "customer=1", "--at", given, "-p", str(shop))
    assert result.exit_code == 2
    assert complaint in told(result)


def test_features_names_the_keys_that_an_entity_has(shop: Path) -> None:
    result = run("features", "customer_orders", "card=1", "-p", str(shop))
    assert result.exit_code == 2
    assert "required customer=…, got ['card']" in told(result)


def test_predict_without_a_service_ends_with_3() -> None:
    result = run("predict", "late_arrival", "origin=JFK", "-p", FLIGHTS, "--url", "http://127.0.0.1:1")
    assert result.exit_code == 3
    assert "headrace serve" in told(result)


def test_models_of_an_empty_registry_say_how_to_get_one(shop: Path) -> None:
    assert "headrace train MODEL" in run("models", "-p", str(shop)).stdout
    assert json.loads(run("models", "-p", str(shop), "--json").stdout) == {"models": [], "half_written": []}


def test_rate_and_speed_exclude_each_other(shop: Path) -> None:
    file = shop / "orders.csv"
    file.write_text("id\n1\n", encoding="utf-8")
    result = run("produce", "orders", str(file), "-p", str(shop), "--rate", "1", "--speed", "2")
    assert result.exit_code == 2


def test_init_makes_a_project_that_is_well_and_overwrites_nothing(tmp_path: Path) -> None:
    assert run("init", str(tmp_path / "shop")).exit_code == 0
    assert run("check", "-p", str(tmp_path / "shop")).exit_code == 0
    again = run("init", str(tmp_path / "shop"))
    assert again.exit_code == 2
    assert "overwrites nothing" in told(again)
    assert "begins with a letter" in told(run("init", str(tmp_path / "1st")))


def test_plan_and_apply_end_where_nothing_is_left_to_do(services: Services, shop: Path, prefix: str) -> None:
    env = at(services, prefix)
    first = json.loads(run("plan", "-p", str(shop), "--json", env=env).stdout)
    assert {topic["action"] for topic in first["topics"]} == {"create"}
    assert [view["action"] for view in first["views"]] == ["register"]
    assert run("apply", "-p", str(shop), "--partitions", "3", env=env).exit_code == 0
    second = json.loads(run("plan", "-p", str(shop), "--json", env=env).stdout)
    assert second["changes"] == 0
    assert {topic["partitions"] for topic in second["topics"]} == {3}


def test_a_changed_aggregation_is_planned_as_a_rebuild(services: Services, shop: Path, prefix: str) -> None:
    env = at(services, prefix)
    run("apply", "-p", str(shop), env=env)
    text = (shop / "features.py").read_text(encoding="utf-8")
    (shop / "features.py").write_text(text.replace('over("1h")', 'over("1h", "2h")'), encoding="utf-8")
    changed = json.loads(run("plan", "-p", str(shop), "--json", env=env).stdout)
    assert [view["action"] for view in changed["views"]] == ["rebuild"]
    assert any("restart `headrace stream`" in line for line in changed["advice"])


def test_produce_sends_each_row_once_in_the_events_format(services: Services, shop: Path, prefix: str) -> None:
    from headrace_schemas.stores.kafka import TopicReader

    env = at(services, prefix)
    run("apply", "-p", str(shop), env=env)
    file = shop / "orders.csv"
    file.write_text("id,at,customer,amount\na,2026-01-05T10:00:00Z,7,1.5\nb,1767607200000000,8,2\n", encoding="utf-8")
    result = run("produce", "orders", str(file), "-p", str(shop), "--json", env=env)
    assert result.exit_code == 0, told(result)
    assert json.loads(result.stdout)["events"] == 2
    with TopicReader(services.kafka, f"{prefix}orders") as reader:
        values = [json.loads(message.value() or b"") for message in reader.read_to_end()]
    assert sorted((value["id"], value["customer"], value["amount"]) for value in values) == [("a", 7, 1.5), ("b", 8, 2)]


def test_produce_that_waits_says_so_when_nothing_folds_and_keeps_the_events(
    services: Services, shop: Path, prefix: str
) -> None:
    env = at(services, prefix)
    run("apply", "-p", str(shop), env=env)
    file = shop / "orders.csv"
    file.write_text("id,at,customer,amount\na,2026-01-05T10:00:00Z,7,1.5\n", encoding="utf-8")
    result = run("produce", "orders", str(file), "-p", str(shop), "--wait", "0.2", env=env)
    assert result.exit_code == 3
    assert f"1 events of {prefix}orders uncommitted after 0.2 s" in told(result)
    found = json.loads(run("status", "-p", str(shop), "--json", env=env).stdout)
    assert [view["events"] for view in found["views"]] == [1]


def test_produce_to_a_topic_that_is_not_there_is_refused(services: Services, shop: Path, prefix: str) -> None:
    file = shop / "orders.csv"
    file.write_text("id,at,customer,amount\na,2026-01-05T10:00:00Z,7,1.5\n", encoding="utf-8")
    result = run("produce", "orders", str(file), "-p", str(shop), env=at(services, prefix))
    assert result.exit_code == 2
    assert "there is no topic" in told(result)


def test_features_of_an_entity_without_events_are_its_defaults(services: Services, shop: Path, prefix: str) -> None:
    found = json.loads(
        run("features", "customer_orders", "customer=7", "-p", str(shop), "--json", env=at(services, prefix)).stdout
    )
    assert found["found"] is False
    assert found["features"] == {"orders_1h": 0}
    wrong = run("features", "customer_orders", "customer=ada", "-p", str(shop), env=at(services, prefix))
    assert "required a whole number, got 'ada'" in told(wrong)


def test_status_counts_what_lags_and_what_does_not_run(services: Services, shop: Path, prefix: str) -> None:
    env = at(services, prefix) | {"HEADRACE_PORT": "1"}
    run("apply", "-p", str(shop), env=env)
    file = shop / "orders.csv"
    file.write_text("id,at,customer,amount\na,2026-01-05T10:00:00Z,7,1.5\n", encoding="utf-8")
    run("produce", "orders", str(file), "-p", str(shop), env=env)
    result = run("status", "-p", str(shop), "--json", env=env)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert [(view["events"], view["lag"]) for view in found["views"]] == [(1, None)]
    assert any("was never fed; run `headrace stream`" in problem for problem in found["problems"])


def test_dead_letters_of_a_topic_that_is_not_there_are_none(services: Services, shop: Path, prefix: str) -> None:
    result = run("dead-letters", "-p", str(shop), "--json", env=at(services, prefix))
    assert json.loads(result.stdout)["count"] == 0
