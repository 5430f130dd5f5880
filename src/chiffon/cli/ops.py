"""`chiffon ops`: a look at the whole."""

from cyclopts import App

from chiffon.cli.console import print_json, print_table, put
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client

app = App(
    name="ops",
    group_commands="Commands",
    help="Show what waits and runs, and what came of the last.",
    result_action="return_value",
)


@app.command(name="queue")
def queue(*, target: Target = HERE) -> int:
    """Show what waits in each queue, by priority and age, and who runs how much.

    ```
    chiffon ops queue
    chiffon ops queue -o json
    ```
    """

    async def work(client: Client) -> int:
        seen = await client.queue_snapshot()
        if target.is_json:
            print_json(seen)
            return Exit.OK
        columns = ("QUEUE", "WAITING", "BY PRIORITY", "RETRIES", "OLDEST")
        print_table(
            columns,
            (
                (
                    pool.pool or f"(for certain agents, {pool.aim})",
                    pool.depth,
                    ", ".join(f"{priority}: {count}" for priority, count in pool.by_priority.items()),
                    pool.retries,
                    None if pool.oldest_seconds is None else f"{pool.oldest_seconds:.0f} s",
                )
                for pool in seen.pools
            ),
        )
        put("", f"Waiting for their keys: {seen.held_by_keys}")
        letters = ", ".join(f"{count} {kind}" for kind, count in seen.dead_letters.items())
        put(f"Dead letters: {letters or 'none'}", "")
        leases = ((one.name, one.agent_id, one.running, one.next_lease_ends_at) for one in seen.leases)
        print_table(("AGENT", "ID", "RUNS", "FIRST LEASE ENDS"), leases)
        return Exit.OK

    return target.run(work)


@app.command(name="executions")
def executions(*, limit: int = 20, target: Target = HERE) -> int:
    """Show the work that ended last, the newest end first.

    ```
    chiffon ops executions --limit 5
    ```

    Parameters
    ----------
    limit
        At most this many.
    """

    async def work(client: Client) -> int:
        ended = await client.executions(limit=limit)
        if target.is_json:
            print_json(ended)
            return Exit.OK
        columns = ("EXECUTION", "COMMAND", "STATUS", "ATTEMPTS", "ENDED", "ERROR")
        print_table(
            columns,
            (
                (one.execution_id, one.command, one.status, one.attempts, one.finished_at, one.error_message)
                for one in ended.items
            ),
        )
        return Exit.OK

    return target.run(work)
