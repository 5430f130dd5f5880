"""`chiffon tasks`: list tasks."""

from uuid import UUID

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.show import print_tasks
from chiffon.client import Client
from common.lifecycle import Status


def tasks(
    *,
    status: Status | None = None,
    work_type: str | None = None,
    agent_type: str | None = None,
    agent: UUID | None = None,
    trace: UUID | None = None,
    limit: int = 50,
    cursor: str | None = None,
    target: Target = HERE,
) -> int:
    """List tasks, newest first.

    ```
    chiffon tasks --status running
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
        Only those that this agent ran.
    trace
        Only those of this trace.
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
            agent_id=agent,
            trace_id=trace,
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
