"""Schema registries for the tests: Apicurio's, which is a real one, and a fake that can be told to be away.

The fake answers the four requests of Confluent's API that are used here, with the status and error codes that a real one gives
(`tests/schemas/test_schema_registry.py` asks both the same).
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from headrace_ops.embedded.server import HOST

_CACHE = Path(__file__).parent.parent / ".cache" / "apicurio"


class FakeRegistry:
    """A registry in a thread.

    Attributes:
        away: whether it answers 503.
        asked: requests so far.
    """

    def __init__(self) -> None:
        self.away = False
        self.asked = 0
        self.schemas: list[dict[str, str]] = []
        self.subjects: dict[str, list[int]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(*registry.get(self.path.split("?")[0]))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(*registry.post(self.path.split("?")[0], body))

            def _answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self.url = f"http://{HOST}:{self._server.server_port}"

    def get(self, path: str) -> tuple[int, object]:
        self.asked += 1
        if self.away:
            return 503, {"error_code": 50301, "message": "away"}
        if found := re.fullmatch(r"/schemas/ids/(\d+)", path):
            number = int(found[1])
            if not 1 <= number <= len(self.schemas):
                return 404, {"error_code": 40403, "message": "Schema not found"}
            return 200, self.schemas[number - 1]
        if found := re.fullmatch(r"/subjects/([^/]+)/versions/latest", path):
            versions = self.subjects.get(found[1])
            if not versions:
                return 404, {"error_code": 40401, "message": f"Subject '{found[1]}' not found."}
            schema = self.schemas[versions[-1] - 1]
            return 200, {"subject": found[1], "version": len(versions), "id": versions[-1], **schema}
        return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def post(self, path: str, body: dict[str, str]) -> tuple[int, object]:
        self.asked += 1
        if self.away:
            return 503, {"error_code": 50301, "message": "away"}
        found = re.fullmatch(r"/subjects/([^/]+)/versions", path)
        assert found, path
        schema = {"schema": body["schema"], "schemaType": body.get("schemaType", "AVRO")}
        try:
            json.loads(schema["schema"])
        except ValueError:
            return 422, {"error_code": 42201, "message": "Invalid schema"}
        if schema not in self.schemas:
            self.schemas.append(schema)
        number = self.schemas.index(schema) + 1
        versions = self.subjects.setdefault(found[1], [])
        if number not in versions:
            versions.append(number)
        return 200, {"id": number}

    def close(self) -> None:
        """Stop answering at all."""
        self._server.shutdown()
        self._server.server_close()


class Apicurio:
    """Apicurio's registry as a `Program` of `headrace_ops.embedded.server`; it keeps what it is told in memory."""

    name = "apicurio"

    def __init__(self, java: str, jar: Path) -> None:
        self._java, self._jar = java, jar

    def command(self, port: int, directory: Path) -> list[str]:
        settings = [f"-Dquarkus.http.port={port}", f"-Dquarkus.http.host={HOST}", f"-Djava.io.tmpdir={directory}"]
        return [self._java, "-Xmx300m", "-XX:+UseSerialGC", *settings, "-jar", str(self._jar)]

    def environment(self) -> dict[str, str | None]:
        return {"CLASSPATH": None, "JAVA_TOOL_OPTIONS": None, "JDK_JAVA_OPTIONS": None}

    def answers(self, port: int, pid: int) -> bool:
        del pid
        try:
            with urllib.request.urlopen(f"{self.address(port)}/subjects", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def address(self, port: int) -> str:
        return f"http://{HOST}:{port}/apis/ccompat/v7"


def find_apicurio() -> Apicurio | str:
    """The registry, or why there is none."""
    jars = sorted(_CACHE.glob("*/*-runner.jar"))
    java = shutil.which("java")
    if not jars:
        return "no Apicurio registry in .cache/apicurio (`make registry` fetches one)"
    return Apicurio(java, jars[-1]) if java else "no `java` on PATH to run Apicurio's registry with"
