"""`chiffon tasks`: list tasks."""

from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from chiffon.cli.agents import find_agent
from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.parameters import collect_texts
from chiffon.cli.show import print_tasks
from chiffon.client import Client
from common.lifecycle import Status


def tasks(
    *,
    status: Status | None = None,
    work_type: str | None = None,
    agent_type: str | None = None,
    agent: str | None = None,
    trace: UUID | None = None,
    name: str | None = None,
    label: Annotated[list[str] | None, Parameter(name="--label", negative=())] = None,
    requested_by: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    target: Target = HERE,
) -> int:
    """List tasks, newest first.

    ```
    chiffon tasks --status running
    chiffon tasks --label env=prod --requested-by ann
    chiffon tasks --limit 200 -o json
    ```

    Parameters
    ----------
    status
        Only those with this status.
    work_type
        Only this kind of work.
    agent_type
        Only those for this type of agent.
    agent
        Only those that this agent ran: its name, its id, or the beginning of its id.
    trace
        Only those of this trace.
    name
        Only those of this name.
    label
        Only those with this label, as NAME=VALUE. Repeat it for more.
    requested_by
        Only those that this identity dispatched.
    limit
        At most this many.
    cursor
        Go on where an earlier list ended.
    """

    async def work(client: Client) -> int:
        page = await client.tasks(
            status=status,
            work_type=work_type,
            agent_type=agent_type,
            agent_id=None if agent is None else await find_agent(client, agent),
            trace_id=trace,
            name=name,
            labels=collect_texts(label or ()),
            requested_by=requested_by,
            limit=limit,
            cursor=cursor,
        )
        if target.is_json:
            print_json(page)
            return Exit.OK
        print_tasks(page.items)
        if page.next_cursor:
            say(f"There are more: --cursor {page.next_cursor}")
        return Exit.OK

    return target.run(work)
