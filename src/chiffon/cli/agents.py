"""`chiffon agents`: list the agents."""

from chiffon.cli.console import print_json
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.show import print_agents
from chiffon.client import Client
from common.messages import AgentStatus


def agents(*, agent_type: str | None = None, status: AgentStatus | None = None, target: Target = HERE) -> int:
    """List the agents.

    ```
    chiffon agents
    chiffon agents --agent-type infra --status online -o json
    ```

    Parameters
    ----------
    agent_type
        Only agents of this type.
    status
        Only agents with this status.
    """

    async def work(client: Client) -> int:
        found = await client.agents(agent_type=agent_type, status=status)
        if target.is_json:
            print_json(found)
        else:
            print_agents(found)
        return Exit.OK

    return target.run(work)
