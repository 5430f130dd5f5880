"""Cases about the ordinary: take what there is, do it once, say how it ended."""

import asyncio

from chiffon.conformance.proxy import Fault
from chiffon.conformance.stage import Stage
from chiffon.conformance.verdicts import Part

# Priorities in the order of creation, and the places of these jobs in the order in which they must be begun.
PRIORITIES = (0, 5, -3, 0, 70, 5, -3, 1)
ORDER = (4, 1, 5, 7, 0, 3, 2, 6)
IDLE_SECONDS = 3.0
MOST_PER_SECOND = 5


async def completes(stage: Stage) -> None:
    job_id = await stage.create()
    await stage.start()
    job = await stage.ended(job_id)
    stage.check(
        job["resultSummary"] == "succeed 0", "complete did not carry the payload's text as resultSummary", Part.END
    )
    # What it says of the job besides, it says before it asks for another.
    done = stage.said("complete", job=job_id)[-1].asked_at
    await stage.until(
        lambda: bool(stage.said("claim", since=done)),
        "it asked for no other job",
        Part.WAIT,
        within=stage.patience.begin,
    )


async def once_in_order(stage: Stage) -> None:
    ids = [await stage.create(priority=priority) for priority in PRIORITIES]
    await stage.start()
    for job_id in ids:
        job = await stage.ended(job_id)
        stage.check(
            job["attempt"] == 1, f"a job needed {job['attempt']} attempts, though nothing had gone wrong", Part.ONCE
        )
    if not stage.begins_before_worker:
        return
    written = stage.written()
    stage.check(len(written) == len(set(written)), "it did the work of a job twice", Part.ONCE)
    if _holds_one_at_a_time(stage, ids):
        expected = [f"succeed {place}" for place in ORDER]
        stage.check(
            list(dict.fromkeys(written)) == expected,
            "it did not begin jobs in the order in which it got them",
            Part.ONCE,
        )


def _holds_one_at_a_time(stage: Stage, ids: list[str]) -> bool:
    """Say whether it claimed a job only after it had ended the one before."""
    moments = sorted(
        (one.asked_at, one.action) for one in stage.said("claim", "complete") if one.job_id in ids and one.status == 200
    )
    return [action for _, action in moments] == ["claim", "complete"] * len(ids)


async def reports_failure(stage: Stage) -> None:
    final = await stage.create("fail", retryable=False)
    await stage.start()
    job = await stage.ended(final, status="failed")
    stage.check(job["errorMessage"] == "fail 0", "fail did not carry the payload's text as errorMessage", Part.END)
    stage.check(job["attempt"] == 1, "a failure that is not retryable was tried again", Part.END)
    passing = await stage.create("fail", retryable=True)
    await stage.until(
        lambda: any(one.says("retryable") is True and one.status == 200 for one in stage.said("fail", job=passing)),
        "it did not say fail with retryable: true for a payload with retryable: true",
        Part.END,
        within=stage.patience.begin,
    )


async def unknown_work(stage: Stage) -> None:
    job_id = await stage.create("dance")
    await stage.start()
    job = await stage.ended(job_id, status="failed")
    stage.check(bool(job["errorMessage"]), "it failed unknown work without an errorMessage", Part.END)
    await stage.goes_on(Part.END)


async def own_types(stage: Stage) -> None:
    foreign = await stage.create(priority=9, work_type=f"{stage.work_type[:60]}_no")
    job_id = await stage.create()
    await stage.start()
    await stage.ended(job_id)
    job = await stage.ledger.get(foreign)
    stage.check(job["attempt"] == 0, "it claimed a job of a type that it was not told to take", Part.TYPES)


async def idle(stage: Stage) -> None:
    nothing = stage.proxy.on("claim", fault=Fault.NOTHING)
    await stage.start()
    await stage.until(lambda: bool(nothing.met), "it did not ask for a job", Part.WAIT, within=stage.patience.begin)
    before = len(stage.said("claim"))
    await asyncio.sleep(IDLE_SECONDS)
    asked = len(stage.said("claim")) - before
    text = f"it asked {asked} times in {IDLE_SECONDS:g} s while there was nothing; at most {MOST_PER_SECOND} a second"
    stage.check(asked <= MOST_PER_SECOND * IDLE_SECONDS, text, Part.WAIT)
    nothing.end()
    await stage.goes_on(Part.WAIT)


async def unknown_fields(stage: Stage) -> None:
    stage.proxy.on(fault=Fault.EXTRA)
    job_id = await stage.create("sleep", seconds=stage.lease * 0.6)
    await stage.start()
    await stage.ended(job_id, part=Part.ANSWERS)
