"""The embedded stack: a Kafka-protocol broker and a Redis-protocol server from Python wheels, as child processes.

For development, the demo and tests. Invariants: both listen on free loopback ports only, keep nothing on disk but their
logs, read no configuration from elsewhere, and end with this process at the latest. Neither survives its own restart:
after one the broker's topics are new topics and the store is empty. What may not live here: anything that talks Kafka or
Redis beyond asking whether the server is up and is ours.
"""

from headrace_ops.embedded.server import EmbeddedServer
from headrace_ops.embedded.stack import Addresses, EmbeddedStack

__all__ = ["Addresses", "EmbeddedServer", "EmbeddedStack"]
