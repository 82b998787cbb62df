"""`python -m tests.recovery.mutations`: the table of mutations, on a Redis of its own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from headrace_ops.embedded.server import HOST
from tests.recovery.mutations.table import MUTATIONS
from tests.redis_topologies import RedisNode, program_of


def main() -> int:
    """Print the table; 1 if a mutation was not caught, or the protocol itself was."""
    kind = "real" if program_of("real") else "embedded"
    missed = 0
    with tempfile.TemporaryDirectory() as place:
        node = RedisNode(str(program_of(kind)), Path(place) / "redis").start()
        try:
            told = node.client().info("server")
            assert isinstance(told, dict)
            print(f"on {told.get('server_name', 'redis')} {told.get('valkey_version') or told['redis_version']}\n")
            print(f"{'the rule that is gone':40} {'with it':10} without it")
            for mutation in MUTATIONS:
                url = f"redis://{HOST}:{node.port}/0"
                whole = mutation.run(url, Path(place), broken=False)
                broken = mutation.run(url, Path(place), broken=True)
                missed += not whole.well or broken.well
                name = f"{mutation.name} (and {mutation.beside})" if mutation.beside else mutation.name
                print(f"{name:40} {whole!s:10} {broken}")
        finally:
            node.stop()
    print(f"\n{len(MUTATIONS) - missed} of {len(MUTATIONS)} caught")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
