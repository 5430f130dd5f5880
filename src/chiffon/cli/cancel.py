"""`chiffon cancel`: cancel a task, or a whole trace."""

from uuid import UUID

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit, Usage
from chiffon.client import Client
from common.lifecycle import Status


def cancel(task_id: UUID | None = None, /, *, trace: UUID | None = None, target: Target = HERE) -> int:
    """Cancel a task, or a whole trace; what runs is stopped.

    ```
    chiffon cancel 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon cancel --trace 5f3c1d2e-4f60-4c5e-9a0b-0b8f5a0e6d0c
    ```

    When it returns, the task will not start any more. A program that runs gets a SIGTERM, and a SIGKILL if it does not
    obey. A task that has already ended cannot be cancelled: exit status 5.

    Parameters
    ----------
    task_id
        The id that `chiffon dispatch` printed.
    trace
        Cancel every task of this trace that has not ended.
    """
    if (task_id is None) == (trace is None):
        raise Usage("name a task, or a trace with --trace")

    async def work(client: Client) -> int:
        if trace is not None:
            return await _cancel_trace(client, trace, as_json=target.is_json)
        assert task_id is not None
        await client.cancel(task_id)
        if target.is_json:
            print_json({"task_id": str(task_id), "status": Status.CANCELLED})
        else:
            say(f"Cancelled task {task_id}.")
        return Exit.OK

    return target.run(work)


async def _cancel_trace(client: Client, trace_id: UUID, *, as_json: bool) -> int:
    answer = await client.cancel_trace(trace_id)
    if as_json:
        print_json(answer)
    else:
        say(f"Cancelled {len(answer.cancelled)} tasks; {answer.already_ended} had ended before.")
    return Exit.OK
