"""What the programs of all peers have in common: what they can be told to do, and where their servers are."""

import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from bench import handing_in
from bench.handing_in import HandsIn, shares

AMQP_URL = os.environ.get("BENCH_AMQP_URL", "")
DATABASE_URL = os.environ.get("BENCH_DATABASE_URL", "")


class Peer(HandsIn, Protocol):
    """One peer. A peer that blocks hands in from threads, one that does not from tasks of an event loop."""

    def prepare(self) -> None:
        """Make tables and queues."""
        ...

    def worker(self) -> None:
        """Work until the process is stopped."""
        ...


def main(peer: Peer) -> None:
    """Do what the first argument says: prepare, worker, produce or latency."""
    match sys.argv[1:]:
        case ["prepare"]:
            peer.prepare()
        case ["worker"]:
            peer.worker()
        case _:
            handing_in.main(peer)


def in_threads(call: Callable[[], object], count: int, callers: int) -> None:
    """Make so many calls from so many threads."""

    def run(share: int) -> None:
        for _ in range(share):
            call()

    threads = [threading.Thread(target=run, args=(share,)) for share in shares(count, callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
