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
    them itself. `in_postgresql` says that PostgreSQL keeps its tasks as well as their results. `lacks` says what
    Chiffon does and it does not.
    """

    name: str
    module: str
    python: Path
    works: Callable[["Contender", Place], AbstractAsyncContextManager[Mapping[str, str]]]
    stored: str | None
    lacks: str
    variables: Mapping[str, str] = field(default_factory=dict)
    has_bulk: bool = True
    in_postgresql: bool = False


def _peer(
    name: str,
    module: str,
    stored: str | None,
    lacks: str,
    *,
    variables: Mapping[str, str] | None = None,
    has_bulk: bool = True,
    in_postgresql: bool = False,
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
        in_postgresql,
    )


OWN_RESULTS = "SELECT count(*) FROM stored_result"
NO_CONTROL = "no lease or fence, no policy or approval, no audit log, no live events, no registry of agents"
NO_RECORD = f"{NO_CONTROL}, no deduplication, no record of a task before it ends"
NO_BROKER = "no message broker, no policy or approval, no audit log, no live events"

CHIFFON = Contender(
    CHIFFON_NAME,
    "bench.chiffon_caller",
    OWN_PYTHON,
    lambda contender, place: chiffon_server.works(place),
    "SELECT count(*) FROM task WHERE status = 'completed'",
    "",
    in_postgresql=True,
)

TASKIQ = "Taskiq"
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
    _peer(TASKIQ, "taskiq_peer", "SELECT count(*) FROM taskiq_results", NO_RECORD, has_bulk=False),
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
        f"{NO_BROKER}, no fence, no output of a task (only how it ended)",
        in_postgresql=True,
    ),
    _peer(
        "DBOS",
        "dbos_peer",
        "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'",
        f"{NO_BROKER}, no registry of agents, no lease (what a lost process ran waits until that process is back)",
        in_postgresql=True,
    ),
    _peer(
        "Absurd",
        "absurd_peer",
        "SELECT count(*) FROM absurd.t_bench WHERE state = 'completed'",
        f"{NO_BROKER}, no registry of agents",
        in_postgresql=True,
    ),
    _peer(
        "PgQueuer",
        "pgqueuer_peer",
        OWN_RESULTS,
        f"{NO_BROKER}, no registry of agents, no fence, no results (the handler writes its own)",
        in_postgresql=True,
    ),
    _peer(
        "Chancy",
        "chancy_peer",
        "SELECT count(*) FROM chancy_jobs WHERE state = 'succeeded'",
        f"{NO_BROKER}, no results (a plugin writes them into the job's row)",
        in_postgresql=True,
    ),
)
