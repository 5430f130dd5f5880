"""`chiffon watch`: print what happens, as it happens."""

from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from chiffon.cli.console import is_terminal, print_json, put, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.show import event_line
from chiffon.cli.streams import is_read
from chiffon.client import Client


def watch(
    *,
    trace: UUID | None = None,
    task: UUID | None = None,
    agent: UUID | None = None,
    kind: Annotated[list[str] | None, Parameter(name="--type", negative=())] = None,
    after: int | None = None,
    target: Target = HERE,
) -> int:
    """Print what happens, as it happens.

    ```
    chiffon watch
    chiffon watch --task 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 --after 0
    chiffon watch --type task.failed --type task.cancelled -o json
    ```

    One event a line, each once and in order, also when the connection is lost in between. The second column is the
    event's number; --after goes on from there. Ctrl-C ends it.

    Parameters
    ----------
    trace
        Only events of this trace.
    task
        Only events of this task.
    agent
        Only events of this agent.
    kind
        Only events of this kind, for example task.failed. Repeat it for more.
    after
        Begin after the event with this number; 0 is the beginning. By default only what happens from now on.
    """
    seen = after

    async def work(client: Client) -> int:
        nonlocal seen
        events = client.watch(trace_id=trace, task_id=task, agent_id=agent, types=kind or (), after=after)
        async with aclosing(events):
            async for event in events:
                if target.is_json:
                    print_json(event)
                else:
                    put(event_line(event))
                seen = event.seq
                if not is_read():
                    break
        return Exit.OK

    status = target.run(work)
    if status == Exit.INTERRUPTED and seen is not None and is_terminal("stderr"):
        say("", f"To go on from here: --after {seen}")
    return status
