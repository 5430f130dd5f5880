"""Cases about the network and the server: lost answers, a server that is busy or away, and leaving in good order."""

import asyncio

from chiffon.conformance.ledger import LIVE
from chiffon.conformance.proxy import Fault
from chiffon.conformance.stage import Stage
from chiffon.conformance.verdicts import Part

AWAY_SECONDS = 2.0
MOST_PER_SECOND = 10
BUSY_TIMES = 2


async def lost_claim(stage: Stage) -> None:
    job_id = await stage.create()
    lost = stage.proxy.on("claim", fault=Fault.LOST, job=job_id, times=1)
    await stage.start()
    await stage.until(lambda: bool(lost.met), "it did not claim", Part.WAIT, within=stage.patience.begin)
    job = await stage.ended(job_id, part=Part.CLAIM_ID)
    stage.check(
        job["attempt"] == 1,
        "the answer to its claim was lost, and it did not claim again with the same claimId",
        Part.CLAIM_ID,
    )


async def lost_complete(stage: Stage) -> None:
    await _lost_end(stage, "complete", "succeed")


async def lost_fail(stage: Stage) -> None:
    await _lost_end(stage, "fail", "fail")


async def _lost_end(stage: Stage, action: str, do: str) -> None:
    job_id = await stage.create(do)
    lost = stage.proxy.on(action, fault=Fault.LOST, job=job_id, times=1)
    await stage.start()
    await stage.until(lambda: bool(lost.met), f"it did not say {action}", Part.END, within=stage.patience.begin)
    await stage.until(
        lambda: any(one.answered_at for one in stage.said(action, job=job_id)),
        f"the answer to its {action} was lost, and it did not repeat it",
        Part.REPEAT,
        within=stage.patience.begin,
    )
    first, *again = stage.said(action, job=job_id)
    stage.check(
        all(one.body == first.body for one in again), f"it repeated its {action} with other content", Part.REPEAT
    )
    stage.check(again[0].status == 200, f"its repeated {action} was answered {again[0].status}", Part.REPEAT)
    await stage.goes_on(Part.REPEAT)


async def busy(stage: Stage) -> None:
    claims = stage.proxy.on("claim", fault=Fault.BUSY, times=BUSY_TIMES)
    ends = stage.proxy.on("complete", fault=Fault.BUSY, times=BUSY_TIMES)
    job_id = await stage.create()
    await stage.start()
    job = await stage.ended(job_id, part=Part.REPEAT)
    stage.check(len(claims.met) == BUSY_TIMES, "it did not claim again after 503", Part.REPEAT)
    stage.check(len(ends.met) == BUSY_TIMES, "it did not say complete again after 503", Part.REPEAT)
    stage.check(
        job["attempt"] == 1, f"it needed attempt {job['attempt']} because a complete was answered 503", Part.REPEAT
    )


async def away(stage: Stage) -> None:
    cut = stage.proxy.on(fault=Fault.CUT)
    await stage.start()
    await stage.until(lambda: bool(cut.met), "it did not ask for a job", Part.WAIT, within=stage.patience.begin)
    before = len(cut.met)
    await asyncio.sleep(AWAY_SECONDS)
    asked = len(cut.met) - before
    text = f"it asked {asked} times in {AWAY_SECONDS:g} s while the server was away; at most {MOST_PER_SECOND} a second"
    stage.check(asked <= MOST_PER_SECOND * AWAY_SECONDS, text, Part.WAIT)
    await stage.proxy.close_door()
    cut.end()
    await asyncio.sleep(AWAY_SECONDS / 2)
    await stage.proxy.open_door()
    await stage.goes_on(Part.WAIT)


async def leaves_idle(stage: Stage) -> None:
    await stage.start()
    await stage.until(
        lambda: bool(stage.said("claim")), "it did not ask for a job", Part.WAIT, within=stage.patience.begin
    )
    await _leave(stage)
    job_id = await stage.create()
    await asyncio.sleep(0.3)
    job = await stage.ledger.get(job_id)
    stage.check(job["status"] == "queued", "a job was given to a claim of a worker that had left", Part.UNTOUCHED)


async def leaves_at_work(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=1)
    await stage.start()
    await stage.begun(job_id)
    await _leave(stage)
    job = await stage.ledger.get(job_id)
    stage.check(
        job["status"] in ("succeeded", "queued", "failed"),
        f"it left without a word about its job, which is {job['status']}",
        Part.UNTOUCHED,
    )
    stage.check(not await stage.still_writes(), "it left, and its work goes on", Part.UNTOUCHED)


async def leaves_between(stage: Stage) -> None:
    job_id = await stage.create()
    held = stage.proxy.on("claim", fault=Fault.LATE, job=job_id, times=1)
    await stage.start()
    await stage.until(lambda: bool(held.met), "it did not claim", Part.WAIT, within=stage.patience.begin)
    stage.process.terminate()
    await asyncio.sleep(0.2)
    held.end()
    await _leave(stage)
    job = await stage.ledger.get(job_id)
    stage.check(
        job["status"] not in LIVE or job["status"] == "queued",
        "it was told to leave while a claim got a job, and left without handing it back",
        Part.UNTOUCHED,
    )


async def _leave(stage: Stage) -> None:
    stage.process.terminate()
    if not await stage.process.ended(within=stage.patience.leave):
        stage.blame(f"it still ran {stage.patience.leave:g} s after SIGTERM", Part.UNTOUCHED)
        return
    stage.check(not stage.process.left_something(), "it left processes behind", Part.UNTOUCHED)
