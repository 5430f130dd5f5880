"""What a run costs beside its tasks: how often it is looked at, and the statements of each look.

How long a plan takes is measured by `python -m bench.plans`; here is counted what makes it long.
"""

from collections import Counter
from typing import Any

import pytest

from orchestrator.database import pool as connections
from orchestrator.database.pool import Connection
from orchestrator.runs import queries
from tests.integration.runs.conftest import Site, echo, ended, plan

STEPS = 6
# A look at the start, one when the first task begins, and one when each ends.
LOOKS = 1 + 1 + STEPS
# So many sweeps may come in between on a slow machine, each with a look.
MOST_SWEEPS = 6
OF_RUNS = {
    queries.LOCK: "lock",
    queries.TRY_OPEN: "lock",
    queries.LOCK_OPEN: "lock",
    queries.LINKS: "look",
    queries.ADD_LINKS: "write",
    queries.STAND: "stand",
    queries.INSERT: "insert",
}


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What orchestrators ask about runs, from now on."""
    seen, prepare = Counter[str](), connections.prepare

    def note(query: Any) -> None:
        seen.update([OF_RUNS[query.query]] if query.query in OF_RUNS else [])

    async def prepare_and_note(connection: Connection) -> None:
        await prepare(connection)
        connection.add_query_logger(note)

    monkeypatch.setattr(connections, "prepare", prepare_and_note)
    return seen


async def test_a_run_is_looked_at_once_for_each_end_and_writes_once_for_each_step(
    bare: Site, statements: Counter[str]
) -> None:
    await bare.open()
    await bare.start_agent()

    async with bare.client as client:
        run = await ended(client, (await client.start_run(plan(*map(echo, map("s{}".format, range(STEPS)))))).run_id)

    assert run.status == "succeeded"
    assert statements["insert"] == 1
    assert statements["stand"] <= 2  # it runs, it has ended
    assert STEPS <= statements["write"] <= STEPS + statements["stand"]
    assert STEPS <= statements["look"] <= LOOKS + MOST_SWEEPS
    # The start holds its row as it stores it.
    assert statements["lock"] <= statements["look"] - 1 + MOST_SWEEPS
