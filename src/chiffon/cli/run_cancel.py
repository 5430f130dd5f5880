"""`chiffon runs cancel`: cancel a run, and say what is stopped and what goes on."""

from collections.abc import Iterable, Iterator
from uuid import UUID

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.run_waits import OPEN
from chiffon.client import Client
from common.rest.runs import Run, RunStep, RunStepStatus, StepKind


def cancel(run: UUID, /, *, target: Target = HERE) -> int:
    """Cancel a run: nothing more of it begins, what runs is stopped, and what succeeded is undone.

    ```
    chiffon runs cancel 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11
    ```

    The undo goes on after the command returns, the last step first; the host of a repair rolls it back. `chiffon runs
    watch` shows when it has. To cancel a run again that is being cancelled changes nothing. A run that has ended cannot
    be cancelled: exit status 5.

    Parameters
    ----------
    run
        The id of the run.
    """

    async def work(client: Client) -> int:
        before = await client.run(run)
        found = await client.cancel_run(run)
        if target.is_json:
            print_json(found)
        else:
            say(*cancelled_lines(before))
        return Exit.CONFLICT if before.is_final else Exit.OK

    return target.run(work)


def cancelled_lines(before: Run) -> list[str]:
    """Say what becomes of a run that is cancelled, by how it stood before."""
    by = f" by {before.cancelled_by}" if before.cancelled_by else ""
    if before.is_final:
        return [f"Run {before.run_id} has ended: it was cancelled before{by}. Nothing is changed."]
    if before.cancelled_by is not None:
        begin = f"Run {before.run_id} is being cancelled already{by}."
    else:
        begin = f"Run {before.run_id} is cancelled: nothing more of it begins."
    return [begin, *_consequences(before)]


def _consequences(run: Run) -> Iterator[str]:
    stopped = [step.step for step in _of_plan(run.steps) if step.status in OPEN and step.task_id is not None]
    if stopped:
        yield f"Stopped: {', '.join(stopped)}."
    if run.service is not None:
        yield f"The host of {run.service} takes back what it has changed."
    done = {step.step for step in _of_plan((*run.earlier, *run.steps)) if step.status == RunStepStatus.SUCCEEDED}
    begun = {step.step for step in run.steps if step.kind == StepKind.UNDO}
    steps = [step for step in run.plan.get("steps", ()) if step["name"] in done]
    if undone := [step["name"] for step in steps if step.get("undo") and step["name"] not in begun]:
        yield f"Undone from now on, the last first: {', '.join(undone)}."
    if run.service is None and (kept := [step["name"] for step in steps if not step.get("undo")]):
        yield f"Left as they are, for they have no undo: {', '.join(kept)}."
    if stopped or undone or run.service is not None:
        yield f"To see how it goes on: chiffon runs watch {run.run_id}"


def _of_plan(steps: Iterable[RunStep]) -> Iterator[RunStep]:
    """Return the steps without what undoes them."""
    return (step for step in steps if step.kind == StepKind.STEP)
