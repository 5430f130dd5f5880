"""A look at a run reads the results of steps that others are yet to refer to, and no others."""

from uuid import UUID

import pytest

from orchestrator.database.pool import Pool
from orchestrator.leases.service import LeaseService
from orchestrator.runs import queries
from orchestrator.runs.model import ToldFor
from tests.factories import make_result
from tests.integration.artifacts.keeping import AT_ONCE, work
from tests.integration.orchestrator.conftest import LEASE

RUN = UUID(int=7)
NAME = "UPDATE run_step SET step = $2, number = 1, superseded = $3 WHERE task_id = $1"


@pytest.mark.parametrize(
    ("told", "is_read"),
    [
        ([], False),
        ([("other", None)], False),
        ([("done", None)], True),
        ([("done", "begun")], False),
        ([("done", "later")], True),
        ([("done", "begun"), ("done", "later")], True),
        ([("done", "again")], True),
    ],
)
async def test_a_result_is_read_until_the_steps_that_refer_to_it_have_begun(
    pool: Pool, told: list[ToldFor], is_read: bool
) -> None:
    for step in ("done", "begun", "again"):
        made = await work(pool, run_id=RUN)
        async with pool.acquire() as db:
            await db.execute(NAME, made.task_id, step, step == "again")
        if step == "done":
            await LeaseService(pool, lease=LEASE, policy=AT_ONCE).accept(
                [make_result(made.task_id, made.agent_id, result={"x": 1}, output="said")]
            )

    async with pool.acquire() as db:
        links = {link.step: link for link in await queries.links(db, RUN, told=told)}
        shown = {link.step: link for link in await queries.shown(db, RUN, told=told)}

    assert links["done"].result == ({"x": 1} if is_read else None)
    assert shown["done"].result == {"x": 1}
    assert (links["done"].output, shown["done"].output) == (("said",) * 2 if is_read else ("", ""))
