"""Carry out a repair: step by step to its end, or back to where it began."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from agents.repairs.deploying import restart, verify
from agents.repairs.failures import DockerAway, StepFailed, Stopped
from agents.repairs.outbox import Ended, Outbox
from agents.repairs.patching import analyze, build, patch
from agents.repairs.rollback import roll_back
from agents.repairs.rules import has_touched
from agents.repairs.state import ROLLBACK, End, Stage, Unit
from agents.repairs.work import Work
from common.compose import RepairStep
from common.messages import StepStatus

log = logging.getLogger(__name__)

# How often undoing is tried again while docker answers; while it does not, for ever.
MOST_TRIES = 20

STEPS: Mapping[RepairStep, Callable[[Work], Awaitable[str]]] = {
    "analyze": analyze,
    "patch": patch,
    "build": build,
    "restart": restart,
    "verify": verify,
}
TAKEN_BACK: Mapping[End, StepStatus] = {
    End.ROLLED_BACK: StepStatus.SUCCEEDED,
    End.IN_PART: StepStatus.FAILED,
    End.UNTOUCHED: StepStatus.SKIPPED,
}
NOT_ROLLED_BACK = "Nothing was rolled back: the service is verified."


async def carry_out(work: Work, steps: Sequence[RepairStep], stopped: Callable[[], str]) -> Unit:
    """Do the steps; when one fails, or a stop is ordered, undo what was done. Return the repair as it stands then.

    `stopped` says why a stop was ordered. A repair that could not be undone yet has no end: it is undone later.
    """
    for step in steps:
        try:
            await _do(work, step, is_last=step == steps[-1])
        except Stopped:
            return await take_back(work, stopped())
        except StepFailed as failure:
            return await take_back(work, str(failure))
        except OSError as error:
            return await take_back(work, f"The host failed: {error}.")
        except Exception as error:  # the host owns the end, whatever is wrong here
            log.exception("repair.failed", extra={"task_id": work.unit.task_id, "step": step})
            return await take_back(work, f"The step {step!r} failed: {type(error).__name__}.")
    await _try_to_hand_over(work)
    return work.unit


async def _do(work: Work, step: RepairStep, *, is_last: bool) -> None:
    work.programs.check_stop()
    await work.report(step, StepStatus.IN_PROGRESS)
    log.info("repair.step", extra={"task_id": work.unit.task_id, "service": work.unit.service, "step": step})
    await work.log(step).begin()
    try:
        message = await STEPS[step](work)
    except (StepFailed, Stopped) as failure:
        await work.log(step).say(str(failure) or "stopped")
        raise
    finally:
        await work.keep_files(step)
    if step == "verify":
        # What it did stays, from the moment on at which this is on disk.
        await work.report(step, StepStatus.SUCCEEDED, message, end=End.VERIFIED)
    elif is_last:
        await work.report(step, StepStatus.SUCCEEDED, message, end=End.PREPARED)
    else:
        await work.report(step, StepStatus.SUCCEEDED, message)


async def take_back(work: Work, cause: str) -> Unit:
    """Undo a repair, because of what `cause` says; return it as it stands then, without an end when that failed."""
    under_way = work.unit.under_way
    cause = work.secrets.on_one_line(cause)
    if under_way is not None:
        await work.report(under_way.name, StepStatus.FAILED, cause, cause=work.unit.cause or cause, is_undoing=True)
    else:
        await work.note(cause=work.unit.cause or cause, is_undoing=True)
    if work.unit.stage is Stage.NEW:
        await work.report(ROLLBACK, StepStatus.SKIPPED, "Nothing had been changed.", end=End.UNTOUCHED)
        await _try_to_hand_over(work)
        return work.unit
    if work.unit.report_of(ROLLBACK) is None:
        if has_touched(work.unit.stage):
            await work.report(ROLLBACK, StepStatus.IN_PROGRESS)
        await work.log(ROLLBACK).say(f"rolling back: {work.unit.cause}")
    try:
        end, message = await roll_back(work, work.log(ROLLBACK))
    except (StepFailed, OSError) as failure:
        await _not_back(work, failure)
    except Exception as failure:  # tried again, like the rest
        log.exception("repair.not_rolled_back", extra={"task_id": work.unit.task_id})
        await _not_back(work, StepFailed(f"The undoing failed: {type(failure).__name__}."))
    else:
        await work.keep_files(ROLLBACK)
        await work.report(ROLLBACK, TAKEN_BACK[end], message, end=end)
    if work.unit.end is not None:
        await _try_to_hand_over(work)
    return work.unit


async def _not_back(work: Work, failure: Exception) -> None:
    """Note that undoing has failed: it is tried again, unless it has failed too often. Nothing is said twice."""
    is_away = isinstance(failure, DockerAway)
    tries = work.unit.tries + (not is_away)
    gives_up = tries >= MOST_TRIES
    text = f"{failure}" if is_away else f"Try {tries} failed. {failure}"
    text = work.secrets.on_one_line(f"{text} This host {'gives up' if gives_up else 'tries again'}.")
    known = work.unit.report_of(ROLLBACK)
    if known is not None and known.message == text:
        return
    await work.log(ROLLBACK).say(text)
    log.error("repair.not_rolled_back", extra={"service": work.unit.service, "tries": tries, "reason": str(failure)})
    if gives_up:
        await work.keep_files(ROLLBACK)
        await work.report(ROLLBACK, StepStatus.FAILED, text, tries=tries, end=End.IN_PART)
    else:
        await work.report(ROLLBACK, StepStatus.IN_PROGRESS, text, tries=tries)


async def _try_to_hand_over(work: Work) -> None:
    try:
        await hand_over(work)
    except OSError as problem:  # the settler does it, as soon as the disk can be written again
        log.warning("repair.not_handed_over", extra={"task_id": work.unit.task_id, "reason": str(problem)})


async def hand_over(work: Work) -> None:
    """Have the end of a repair wait until the orchestrator has it. A prepared one says by its result how it ended.

    Raises `OSError`.
    """
    if work.unit.end is End.VERIFIED:
        await _remove_copy(work)
        await work.log(ROLLBACK).say(NOT_ROLLED_BACK)
        await work.keep_files(ROLLBACK)
        await work.report(ROLLBACK, StepStatus.SKIPPED, NOT_ROLLED_BACK)
    if work.unit.end is not End.PREPARED:
        await asyncio.to_thread(Outbox(work.store.folder).keep, Ended.of(work.unit))
    await work.note(handed_over=True)


async def _remove_copy(work: Work) -> None:
    try:
        await work.git(lasts=True).remove_worktree(work.tree)
    except (StepFailed, OSError) as problem:  # the next repair of the service removes it
        log.warning("repair.worktree_left", extra={"service": work.unit.service, "reason": str(problem)})
