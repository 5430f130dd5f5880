"""`chiffon why`: say what a task waits for."""

from uuid import UUID

from chiffon.cli.console import print_json, put
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client


def why(task_id: UUID, /, *, target: Target = HERE) -> int:
    """Say what a task waits for.

    ```
    chiffon why 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon why 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 -o json
    ```

    One line for each thing that is in its way now: others of its keys, a retry that is due later, the broker, agents
    that are away, busy, paused or drained. A task that runs or has ended does not wait, and the line says so.

    Parameters
    ----------
    task_id
        The id that `chiffon dispatch` printed.
    """

    async def work(client: Client) -> int:
        answer = await client.why(task_id)
        if target.is_json:
            print_json(answer)
        else:
            put(*(blocker.message for blocker in answer.blockers))
        return Exit.OK

    return target.run(work)
