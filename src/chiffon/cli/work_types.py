"""`chiffon work-types`: list what may be dispatched."""

from chiffon.cli.console import print_json, print_table
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client
from common.rest.work_types import KnownWorkType


def work_types(*, target: Target = HERE) -> int:
    """List the work types, their pools, and the agents that offer them now.

    ```
    chiffon work-types
    chiffon work-types -o json
    ```

    JSON also has the JSON Schema of the parameters of each type.
    """

    async def work(client: Client) -> int:
        found = await client.work_types()
        if target.is_json:
            print_json(found)
        else:
            print_table(("TYPE", "POOL", "AGENTS", "DESCRIPTION"), map(_row, found))
        return Exit.OK

    return target.run(work)


def _row(known: KnownWorkType) -> tuple[object, ...]:
    names = sorted({agent.name for agent in known.agents})
    agents = f"{len(known.agents)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "0"
    description = None if known.description is None else known.description.split("\n", 1)[0]
    return known.name, known.pool, agents, description
