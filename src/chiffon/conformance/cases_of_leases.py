"""Cases about ownership: keep a lease, stop when it is lost or the job was cancelled, be silent about what is lost."""

import asyncio
import signal
import time
from itertools import pairwise

from chiffon.conformance.ledger import LIVE
from chiffon.conformance.proxy import Fault
from chiffon.conformance.stage import Stage
from chiffon.conformance.verdicts import UNDER_WAY, Part

# How much later than a lease's end work may still be found writing: looking takes time, too.
AFTER_LEASE = 1.0


async def heartbeats(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=2.5 * stage.lease)
    await stage.start()
    claim = await stage.begun(job_id)
    job = await stage.ended(job_id, part=Part.LEASE, within=stage.patience.begin + 3 * stage.lease)
    stage.check(job["attempt"] == 1, "its lease ran out while it worked", Part.LEASE)
    renewed = [one.answered_at for one in stage.said("heartbeat", job=job_id) if one.status == 200 and one.answered_at]
    moments = [claim.answered_at or claim.asked_at, *renewed]
    longest = max((later - earlier for earlier, later in pairwise(moments)), default=None)
    if longest is None:
        stage.blame("it sent no heartbeat while it worked for longer than its lease", Part.LEASE)
    else:
        stage.check(
            longest < stage.lease,
            f"{longest:.1f} s went by between heartbeats; the lease is {stage.lease:g} s",
            Part.LEASE,
        )


async def cancelled(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=60)
    await stage.start()
    await stage.begun(job_id)
    await stage.ledger.cancel(job_id)
    cancelled_at = time.monotonic()
    await stage.until(
        lambda: any(one.status == 200 for one in stage.said("heartbeat", job=job_id, since=cancelled_at)),
        "it sent no heartbeat that could tell it of the cancel",
        Part.LEASE,
        within=2 * stage.lease,
    )
    await stage.until(
        lambda: any(one.says("cancelled") is True for one in stage.said("fail", job=job_id)),
        "it was told that its job was cancelled, and did not say fail with cancelled: true",
        Part.CANCEL,
        within=2 * stage.lease,
    )
    stage.check(
        not await stage.still_writes(), "it said that a cancelled job was stopped, and its work goes on", Part.CANCEL
    )
    await stage.goes_on(Part.CANCEL)


async def lease_lost(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=2 * stage.lease)
    await stage.start()
    claim = await stage.begun(job_id)
    deaf = stage.proxy.on("heartbeat", fault=Fault.CUT, job=job_id, attempt=1)
    started = claim.answered_at or claim.asked_at
    await stage.until(
        lambda: bool(deaf.met),
        "it sent no heartbeat",
        Part.LEASE,
        within=max(stage.lease, started + stage.lease - time.monotonic()),
    )
    renewed = [one.answered_at for one in stage.said("heartbeat", job=job_id) if one.status == 200 and one.answered_at]
    await asyncio.sleep(max(0.0, max([started, *renewed]) + stage.lease + AFTER_LEASE - time.monotonic()))
    went_on = await stage.still_writes() and len(stage.said("claim", job=job_id)) == 1
    stage.check(not went_on, "it could not renew, and its work went on after the end of the lease", Part.OWNER)
    deaf.end()
    job = await stage.ended(job_id, part=Part.OWNER, within=stage.patience.put_back)
    stage.check(
        job["attempt"] == 2, f"a job whose lease was lost once ended with attempt {job['attempt']}, not 2", Part.ATTEMPT
    )
    stale = [
        one for one in stage.said("complete", job=job_id) if one.says("attempt") in (1, None) and one.status == 200
    ]
    stage.check(not stale, "it completed with what it did for an attempt that it had lost", Part.ATTEMPT)


async def refused_heartbeat(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=3 * stage.lease)
    await stage.start()
    await stage.begun(job_id)
    refusal = stage.proxy.on("heartbeat", fault=Fault.STALE, job=job_id, times=1)
    await stage.until(
        lambda: any(one.answered_at for one in refusal.met), "it sent no heartbeat", Part.LEASE, within=stage.lease
    )
    told = refusal.met[0].answered_at or 0.0
    await asyncio.sleep(1)
    stage.check(not await stage.still_writes(), "its heartbeat was answered 409, and its work goes on", Part.OWNER)
    later = stage.said("heartbeat", "complete", "fail", job=job_id, since=told + UNDER_WAY)
    stage.check(not later, "it went on speaking for an attempt after 409", Part.OWNER)
    await stage.ledger.cancel(job_id)
    await stage.goes_on(Part.OWNER)


async def frozen(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=stage.lease)
    await stage.start()
    await stage.begun(job_id)
    stage.process.signal(signal.SIGSTOP)
    await stage.proxy.cut_all()  # or a claim that it had open could get the job
    rival = await stage.ledger.hire(f"rival-{stage.work_type}")
    job = await stage.taken_by(rival, within=stage.patience.put_back)
    thawed_at = time.monotonic()
    stage.process.signal(signal.SIGCONT)
    await stage.until(
        lambda: bool(stage.said("claim", "heartbeat", "complete", "fail", since=thawed_at)),
        "it did nothing after it had been stopped and continued",
        Part.OWNER,
        within=stage.patience.begin,
    )
    await stage.ledger.complete(rival, job, summary="by the rival")
    await stage.goes_on(Part.OWNER)
    kept = await stage.ledger.get(job_id)
    stage.check(
        (kept["status"], kept["resultSummary"]) == ("succeeded", "by the rival"),
        "its late result replaced that of the worker that had the job by then",
        Part.OWNER,
    )


async def killed(stage: Stage) -> None:
    job_id = await stage.create("sleep", seconds=0.5)
    held = stage.proxy.on("claim", fault=Fault.LATE, job=job_id)
    await stage.start()
    await stage.until(lambda: bool(held.met), "it did not claim", Part.WAIT, within=stage.patience.begin)
    await stage.process.kill()
    stage.check(not stage.process.left_something(), "something that it started outlived its process group", Part.OWNER)
    held.end()
    job = await stage.ledger.get(job_id)
    stage.check(job["status"] in LIVE, f"a job whose worker was killed before it ran is {job['status']}", Part.OWNER)
    await stage.start()
    job = await stage.ended(job_id, part=Part.OWNER, within=stage.patience.put_back)
    stage.check(job["attempt"] == 2, f"it ended with attempt {job['attempt']}, not with the second", Part.OWNER)
