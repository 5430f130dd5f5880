"""Who is compared, and what each does not do that Chiffon does."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench import chiffon_server, peer_workers
from bench.programs import OWN_PYTHON, PEERS_PYTHON, Place
from bench.report import CHIFFON as CHIFFON_NAME


@dataclass(frozen=True, slots=True)
class Contender:
    """One of those compared.

    `module` is the program that hands in tasks. `works` runs what takes them and yields what the program needs to know
    besides its place. `stored` counts the results in PostgreSQL; None: they are not there, and the program waits for
    them itself. `lacks` says what Chiffon does and it does not.
    """

    name: str
    module: str
    python: Path
    works: Callable[["Contender", Place], AbstractAsyncContextManager[Mapping[str, str]]]
    stored: str | None
    lacks: str
    variables: Mapping[str, str] = field(default_factory=dict)
    has_bulk: bool = True


def _peer(
    name: str,
    module: str,
    stored: str | None,
    lacks: str,
    *,
    variables: Mapping[str, str] | None = None,
    has_bulk: bool = True,
) -> Contender:
    return Contender(
        name,
        f"bench.peers.{module}",
        PEERS_PYTHON,
        lambda contender, place: peer_workers.works(contender.module, contender.variables, place),
        stored,
        lacks,
        variables or {},
        has_bulk,
    )


OWN_RESULTS = "SELECT count(*) FROM stored_result"
NO_CONTROL = "no lease or fence, no policy or approval, no audit log, no live events, no registry of agents"
NO_RECORD = f"{NO_CONTROL}, no deduplication, no record of a task before it ends"

CHIFFON = Contender(
    CHIFFON_NAME,
    "bench.chiffon_caller",
    OWN_PYTHON,
    lambda contender, place: chiffon_server.works(place),
    "SELECT count(*) FROM task WHERE status = 'completed'",
    "",
)

PEERS = (
    _peer("Celery", "celery_peer", "SELECT count(*) FROM celery_taskmeta WHERE status = 'SUCCESS'", NO_RECORD),
    _peer(
        "Celery, RPC results",
        "celery_peer",
        None,
        f"{NO_RECORD}; results are lost with the caller",
        variables={"BENCH_CELERY_BACKEND": "rpc"},
    ),
    _peer("Dramatiq", "dramatiq_peer", OWN_RESULTS, f"{NO_RECORD}, no results in PostgreSQL (the task writes its own)"),
    _peer("Taskiq", "taskiq_peer", "SELECT count(*) FROM taskiq_results", NO_RECORD, has_bulk=False),
    _peer(
        "FastStream",
        "faststream_peer",
        OWN_RESULTS,
        f"{NO_RECORD}, no results (the handler writes its own), no retries: messages and a handler",
        has_bulk=False,
    ),
    _peer(
        "Procrastinate",
        "procrastinate_peer",
        "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'",
        "no message broker, no fence, no policy or approval, no audit log, no live events, no output of a task",
    ),
)
