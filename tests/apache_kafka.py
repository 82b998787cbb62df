"""A local Apache Kafka for the tests: one KRaft process from a folder of jars."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import uuid
from pathlib import Path

from headrace_ops.embedded.broker import cluster_id
from headrace_ops.embedded.server import HOST, free_port

_CACHE = Path(__file__).parent.parent / ".cache" / "kafka"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# one broker holds one replica of everything, the internal topics too
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
# records of tests are from 1970 or last year; where they are to expire, a test removes them itself
log.retention.ms=-1
# a topic that a test forgot to create is a mistake here, as it is on many a cluster
auto.create.topics.enable=false
"""


class ApacheKafka:
    """Apache Kafka as a `Program` of `headrace_ops.embedded.server`.

    Args:
        java: the program that runs it.
        jars: the folder of its jars.
    """

    name = "real-kafka"

    def __init__(self, java: str, jars: Path) -> None:
        # A second compiler took a fifth to a third of a core for half a minute and more; tests and benchmarks have two cores.
        self._java = [java, "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        # A leading "-" would read as an option of the storage tool.
        self._cluster_id = "h" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        self.version = _version(jars)

    def command(self, port: int, directory: Path) -> list[str]:
        """The broker's command line, after its storage was formatted (once for each port)."""
        settings = directory / f"server-{port}.properties"
        if not settings.exists():
            data = directory / f"data-{port}"
            settings.write_text(_PROPERTIES.format(host=HOST, port=port, controller=free_port(), data=data))
            tool = [*self._java, "kafka.tools.StorageTool", "format", "-t", self._cluster_id, "-c", str(settings)]
            done = subprocess.run(tool, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"Apache Kafka could not format its storage:\n{done.stdout}{done.stderr}")
        return [*self._java, "kafka.Kafka", str(settings)]

    def environment(self) -> dict[str, str | None]:
        return {"CLASSPATH": None, "JAVA_TOOL_OPTIONS": None, "JDK_JAVA_OPTIONS": None}

    def answers(self, port: int, pid: int) -> bool:
        return cluster_id(HOST, port) == self._cluster_id

    def address(self, port: int) -> str:
        return f"{HOST}:{port}"


def find_jars() -> Path | None:
    """The folder of Apache Kafka's jars: of HEADRACE_TEST_KAFKA_HOME, else the newest that `make kafka` fetched."""
    home = os.environ.get("HEADRACE_TEST_KAFKA_HOME")
    places = [Path(home) / "libs", Path(home)] if home else sorted(_CACHE.glob("*/libs"), reverse=True)
    for place in places:
        if any(place.glob("kafka_2.1*.jar")):
            return place.resolve()
    if home:
        raise RuntimeError(
            f"HEADRACE_TEST_KAFKA_HOME={home}: required a folder with libs/kafka_2.13-….jar, but there is none"
        )
    return None


def _version(jars: Path) -> str:
    names = " ".join(sorted(jar.name for jar in jars.glob("kafka_2.1*.jar")))
    found = re.search(r"kafka_2\.1\d-([0-9.]+)\.jar", names)
    return found.group(1) if found else "of unknown version"
