"""``python -m headrace_serving --project DIR [--host HOST] [--port PORT]``: the service as a process of its own."""

from __future__ import annotations

import argparse
import sys

from headrace.errors import HeadraceError
from headrace_schemas.loading import load_project
from headrace_serving.server import run_server


def main(arguments: list[str] | None = None) -> int:
    """Run the service; errors are one line on stderr and an exit code."""
    parser = argparse.ArgumentParser(prog="python -m headrace_serving", description="Serve a project's models.")
    parser.add_argument("--project", help="project directory or package; by default the working directory")
    parser.add_argument("--host", help="address to listen on; by default the setting")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any free one; by default the setting")
    given = parser.parse_args(arguments)
    try:
        return run_server(load_project(given.project), given.host, given.port)
    except HeadraceError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
