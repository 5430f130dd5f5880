"""`chiffon status`: show where a task stands."""

from typing import Annotated
from uuid import UUID

from chiffon.cli.follow import wait_for_task
from chiffon.cli.options import HERE, Flag, Target
from chiffon.cli.outcome import Exit, exit_of_work
from chiffon.cli.show import print_task
from chiffon.client import Client


def status(task_id: UUID, /, *, wait: Annotated[bool, Flag] = False, target: Target = HERE) -> int:
    """Show where a task stands.

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
    """

    async def work(client: Client) -> int:
        task = await (wait_for_task(client, task_id, as_json=target.is_json) if wait else client.status(task_id))
        print_task(task, as_json=target.is_json)
        return exit_of_work(task.status, task.error_code) if wait else Exit.OK

    return target.run(work, resume=f"chiffon status {task_id} --wait" if wait else "")
