"""`chiffon whoami`: show whose token is used."""

from chiffon.cli.console import print_fields, print_json
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client


def whoami(*, target: Target = HERE) -> int:
    """Show whose token is used, and what it may do.

    ```
    chiffon whoami
    chiffon whoami -o json
    ```
    """

    async def work(client: Client) -> int:
        me = await client.whoami()
        if target.is_json:
            print_json(me)
            return Exit.OK
        print_fields(
            [
                ("name", me.name),
                ("kind", me.kind),
                ("roles", ", ".join(me.roles)),
                ("may", ", ".join(me.permissions)),
                ("identity", me.principal_id),
                ("token", me.token_id),
                ("agent", me.agent_id),
            ]
        )
        return Exit.OK

    return target.run(work)
