"""`chiffon identities`: who is known."""

from typing import Annotated, Literal
from uuid import UUID

from cyclopts import App, Parameter

from chiffon.cli.console import print_json, print_table, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit, Usage
from chiffon.client import Client

app = App(name="identities", group_commands="Commands", result_action="return_value")

Roles = Literal["viewer", "operator", "approver", "admin"]


@app.default
def identities(*, target: Target = HERE) -> int:
    """List who is known, make somebody known, shut out.

    ```
    chiffon identities
    chiffon identities create ann --role operator
    chiffon identities create backup --kind service --role operator
    chiffon identities disable ann
    ```
    """

    async def work(client: Client) -> int:
        found = await client.identities()
        if target.is_json:
            print_json(found)
            return Exit.OK
        rows = [
            (one.name, one.kind, ", ".join(one.roles), one.agent_type, one.created_at, one.disabled_at) for one in found
        ]
        print_table(("NAME", "KIND", "ROLES", "AGENT TYPE", "CREATED", "DISABLED"), rows)
        return Exit.OK

    return target.run(work)


@app.command
def create(
    name: str,
    /,
    *,
    role: Annotated[list[Roles], Parameter(name="--role", negative=())],
    kind: Literal["person", "service"] = "person",
    target: Target = HERE,
) -> int:
    """Make a person or a service known.

    ```
    chiffon identities create ann --role operator --role approver
    ```

    It gets a token with `chiffon tokens create`.

    Parameters
    ----------
    name
        The name that events will show; it is never given to anybody else.
    role
        What may be done: viewer, operator, approver (people only) or admin. Repeat it for more.
    kind
        A person, or a program.
    """

    async def work(client: Client) -> int:
        made = await client.create_identity(name, role, kind=kind)
        if target.is_json:
            print_json(made)
        else:
            say(f"Known: {made.kind} {made.name}, {', '.join(made.roles)}. A token: chiffon tokens create {made.name}")
        return Exit.OK

    return target.run(work)


@app.command
def disable(name: str, /, *, target: Target = HERE) -> int:
    """Shut somebody out for ever: a person, a service or an agent.

    ```
    chiffon identities disable ann
    ```

    Within a second no token of theirs counts any more.

    Parameters
    ----------
    name
        The name, or the id of the identity.
    """

    async def work(client: Client) -> int:
        gone = await client.disable_identity(await find_identity(client, name))
        if target.is_json:
            print_json(gone)
        else:
            say(f"Disabled: {gone.kind} {gone.name}.")
        return Exit.OK

    return target.run(work)


async def find_identity(client: Client, name: str) -> UUID:
    """Return the id that a name means."""
    try:
        return UUID(name)
    except ValueError:
        pass
    for one in await client.identities():
        if one.name == name:
            return one.principal_id
    raise Usage(f"nobody is called {name!r}; chiffon identities lists everybody")
