"""Kafka and Redis in containers, for the tests, where testcontainers is installed and a Docker engine answers."""

from __future__ import annotations

from contextlib import ExitStack

from headrace_ops.embedded.server import HOST, free_port

KAFKA_IMAGE = "apache/kafka:4.1.0"
REDIS_IMAGE = "redis:7.4.2"


def no_docker() -> str | None:
    """Why there is no Docker for the tests; None when there is."""
    try:
        import docker
        import testcontainers.core.container  # noqa: F401  (its presence is the question)
    except ImportError:
        return "testcontainers is not installed (pip install 'headrace[containers]')"
    try:
        client = docker.from_env(timeout=3)
        try:
            client.ping()
        finally:
            client.close()
    except docker.errors.DockerException as error:
        return f"no Docker engine answers ({str(error)[:120]})"
    return None


def kafka_container(running: ExitStack) -> tuple[str, str]:
    """Apache Kafka's own image on a free port of this machine; its address and name."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    port = free_port()
    settings = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{HOST}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in settings.items():
        container = container.with_env(name, value)
    wait_for_logs(running.enter_context(container), "Kafka Server started", timeout=60)
    return f"{HOST}:{port}", f"{KAFKA_IMAGE} in Docker"


def redis_container(running: ExitStack) -> tuple[str, str]:
    """Redis' own image on a free port of this machine, without persistence and eviction; its address and name."""
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    port = free_port()
    container = (
        DockerContainer(REDIS_IMAGE)
        .with_bind_ports(6379, port)
        .with_command("redis-server --save '' --appendonly no --maxmemory-policy noeviction")
    )
    wait_for_logs(running.enter_context(container), "Ready to accept connections", timeout=60)
    return f"redis://{HOST}:{port}/0", f"{REDIS_IMAGE} in Docker"
