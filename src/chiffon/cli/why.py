"""`chiffon why`: say what a task, or a run, waits for."""

from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from chiffon.cli.console import print_json, put
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.run_view import step_name
from chiffon.cli.run_waits import OPEN, StepWhy, behind, whys
from chiffon.client import Client
from chiffon.errors import ApiError
from common.errors import ErrorCode
from common.rest.runs import Run
from common.rest.why import Why


def why(id_: Annotated[UUID, Parameter(name="ID")], /, *, target: Target = HERE) -> int:
    """Say what a task waits for, or a run.

    ```
    chiffon why 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon why 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 -o json
    ```

    One line for each thing that is in its way now: others of its keys, a retry that is due later, the broker, agents
    that are away, busy, paused or drained. A task that runs or has ended does not wait, and the line says so. Of a run,
    each of its steps that has begun and not ended is explained by its task.

    Parameters
    ----------
    id_
        The id that `chiffon dispatch` or `chiffon runs start` printed.
    """

    async def work(client: Client) -> int:
        answer = await _task_or_run(client, id_)
        if isinstance(answer, Run):
            _print_run(answer, await whys(client, answer, OPEN), as_json=target.is_json)
        elif target.is_json:
            print_json(answer)
        else:
            put(*(blocker.message for blocker in answer.blockers))
        return Exit.OK

    return target.run(work)


async def _task_or_run(client: Client, id_: UUID) -> Why | Run:
    """Return why the task of this id waits, or else the run."""
    try:
        return await client.why(id_)
    except ApiError as error:
        if error.error_code != ErrorCode.TASK_NOT_FOUND:
            raise
        try:
            return await client.run(id_)
        except ApiError as none:
            if none.error_code != ErrorCode.RUN_NOT_FOUND:
                raise
            message = f"Neither a task nor a run has the id {id_}."
            raise ApiError(error.status, message, error_code=error.error_code) from none


def _print_run(run: Run, steps: list[StepWhy], *, as_json: bool) -> None:
    if as_json:
        waiting = run.waits_for is not None or any(one.why.waiting for one in steps)
        found = [{"step": one.step.step, "kind": one.step.kind, **one.why.model_dump(mode="json")} for one in steps]
        waits_for = None if run.waits_for is None else str(run.waits_for)
        about = {"run_id": str(run.run_id), "status": run.status, "waiting": waiting, "waits_for": waits_for}
        print_json(about | {"steps": found})
        return
    first = behind(run)
    lines = [] if first is None else [first]
    lines += [f"{step_name(one.step)}: {blocker.message}" for one in steps for blocker in one.why.blockers]
    put(*lines or [f"It does not wait: it is {run.status}."])
