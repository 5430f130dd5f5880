"""`chiffon cancel`: cancel a task."""

from uuid import UUID

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client
from common.lifecycle import Status


def cancel(task_id: UUID, /, *, target: Target = HERE) -> int:
    """Cancel a task; one that runs is stopped.

    ```
    chiffon cancel 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    ```

    When it returns, the task will not start any more. A program that runs gets a SIGTERM, and a SIGKILL if it does not
    obey. A task that has already ended cannot be cancelled: exit status 5.

    Parameters
    ----------
    task_id
        The id that `chiffon dispatch` printed.
    """

    async def work(client: Client) -> int:
        await client.cancel(task_id)
        if target.is_json:
            print_json({"task_id": str(task_id), "status": Status.CANCELLED})
        else:
            say(f"Cancelled task {task_id}.")
        return Exit.OK

    return target.run(work)
