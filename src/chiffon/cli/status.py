"""`chiffon status`: show where a task stands."""

from typing import Annotated
from uuid import UUID

from chiffon.cli.fan_out import print_fan_out, wait_for_fan_out
from chiffon.cli.follow import wait_for_task
from chiffon.cli.options import HERE, Flag, Target
from chiffon.cli.outcome import Exit, exit_of_work
from chiffon.cli.show import print_task
from chiffon.client import Client
from chiffon.errors import ApiError
from common.errors import ErrorCode


def status(
    task_id: UUID,
    /,
    *,
    wait: Annotated[bool, Flag] = False,
    raw: Annotated[bool, Flag] = False,
    target: Target = HERE,
) -> int:
    """Show where a task stands, or work on several agents.

    ```
    chiffon status 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon status 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 --wait -o json
    ```

    The exit status is 0 whatever the task's own status is; with --wait it is the outcome's.

    Parameters
    ----------
    task_id
        The id that `chiffon dispatch` printed.
    wait
        Stay until the task ends.
    raw
        Print its output as it is, with control sequences, also on a terminal.
    """

    async def work(client: Client) -> int:
        try:
            task = await (wait_for_task(client, task_id, as_json=target.is_json) if wait else client.status(task_id))
        except ApiError as error:
            if error.error_code != ErrorCode.TASK_NOT_FOUND:
                raise
            return await _fan_out(client, task_id, error, wait=wait, as_json=target.is_json)
        print_task(task, as_json=target.is_json, raw=raw)
        return exit_of_work(task.status, task.error_code) if wait else Exit.OK

    return target.run(work, resume=f"chiffon status {task_id} --wait" if wait else "")


async def _fan_out(client: Client, fan_out_id: UUID, unknown: ApiError, *, wait: bool, as_json: bool) -> int:
    """Show the fan-out of an id that no task has; raises `unknown` when there is none either."""
    try:
        found = await client.fan_out(fan_out_id)
    except ApiError:
        raise unknown from None
    if wait:
        return await wait_for_fan_out(client, fan_out_id, as_json=as_json)
    print_fan_out(found, as_json=as_json)
    return Exit.OK
