"""`chiffon rerun`: run a task once more."""

from typing import Annotated
from uuid import UUID, uuid4

from chiffon.cli.console import print_json, put, say
from chiffon.cli.follow import wait_for_task
from chiffon.cli.options import HERE, Flag, Target
from chiffon.cli.outcome import Exit, exit_of_work
from chiffon.cli.show import print_task
from chiffon.client import Client


def rerun(
    task_id: UUID,
    /,
    *,
    wait: Annotated[bool, Flag] = False,
    raw: Annotated[bool, Flag] = False,
    target: Target = HERE,
) -> int:
    """Run a task that has ended once more, as a new task.

    ```
    chiffon rerun 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon rerun 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 --wait
    ```

    Prints the id of the new task, which has the same content and names the old one. A task that has not ended is not
    run again: exit status 5. With --wait the outcome is the exit status, as of `chiffon dispatch`.

    Parameters
    ----------
    task_id
        The task to repeat.
    wait
        Stay until the new task ends, then show it.
    raw
        Print its output as it is, with control sequences, also on a terminal.
    """
    again = uuid4()

    async def work(client: Client) -> int:
        accepted = await client.rerun(task_id, as_task=again)
        if wait:
            status = await wait_for_task(client, again, as_json=target.is_json)
            print_task(status, as_json=target.is_json, raw=raw)
            return exit_of_work(status.status, status.error_code)
        if target.is_json:
            print_json(accepted)
        else:
            say("Dispatched once more. To see what it writes: chiffon logs -f with this id:")
            put(str(again))
        return Exit.OK

    return target.run(work, resume=f"chiffon logs -f {again}" if wait else "")
