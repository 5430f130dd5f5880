"""`chiffon tokens`: what people and services prove with who they are."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import App, Parameter
from cyclopts.validators import Number

from chiffon.cli.console import print_json, print_table, put, say
from chiffon.cli.identities import find_identity
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.client import Client
from common.rest.identities import Token

app = App(name="tokens", group_commands="Commands", result_action="return_value")

Scope = Literal["read", "dispatch", "operate", "approve", "audit", "administer"]


@app.default
def tokens(*, identity: str | None = None, target: Target = HERE) -> int:
    """List, make, claim and revoke tokens.

    ```
    chiffon tokens
    chiffon tokens --identity ann -o json
    chiffon tokens create backup --scope dispatch --days 90 --note "nightly job"
    chiffon tokens claim --file own.token
    chiffon tokens revoke 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon tokens bootstrap ann
    ```

    Parameters
    ----------
    identity
        Only those of this person, service or agent: the name, or the id.
    """

    async def work(client: Client) -> int:
        owner = None if identity is None else await find_identity(client, identity)
        found = await client.tokens(principal_id=owner)
        if target.is_json:
            print_json(found)
            return Exit.OK
        names = {one.principal_id: one.name for one in await client.identities()}
        rows = [
            (
                one.token_id,
                names.get(one.principal_id, "?"),
                one.purpose,
                "all" if one.scopes is None else ", ".join(one.scopes),
                one.last_used_at,
                one.expires_at,
                one.claimed_at,
                one.revoked_at,
                one.note,
            )
            for one in found
        ]
        print_table(("TOKEN", "OF", "FOR", "SCOPES", "LAST USED", "EXPIRES", "CLAIMED", "REVOKED", "NOTE"), rows)
        return Exit.OK

    return target.run(work)


@app.command
def create(
    identity: str,
    /,
    *,
    scope: Annotated[list[Scope] | None, Parameter(name="--scope", negative=())] = None,
    days: Annotated[float | None, Parameter(validator=Number(gt=0))] = None,
    note: str = "",
    target: Target = HERE,
) -> int:
    """Make a token of a person or a service and print it, this once.

    ```
    chiffon tokens create ann
    chiffon tokens create backup --scope dispatch --days 90 --note "nightly job" > backup.token
    ```

    Parameters
    ----------
    identity
        Whose it will be: the name, or the id.
    scope
        Only this of what its owner may do. Repeat it for more.
    days
        For how many days it counts; by default until it is revoked.
    note
        What it is for.
    """

    async def work(client: Client) -> int:
        owner = await find_identity(client, identity)
        lasting = None if days is None else timedelta(days=days)
        made = await client.create_token(owner, scopes=scope, note=note, lasting=lasting)
        if target.is_json:
            print_json(made)
        else:
            put(made.token)
            say(f"This is token {made.token_id}; it is shown this once. Send it as CHIFFON_TOKEN.")
            if made.claimed_at is None:
                say("To approve, its owner claims it first: chiffon tokens claim")
        return Exit.OK

    return target.run(work)


@app.command
def claim(*, file: Path | None = None, target: Target = HERE) -> int:
    """Replace your token by one that nobody else has seen, and print it, this once.

    ```
    CHIFFON_TOKEN_FILE=ben.token chiffon tokens claim --file own.token
    ```

    A token that somebody else made lets you approve only once you have claimed it. The old one counts no more.

    Parameters
    ----------
    file
        Write the token there, readable for this user only, instead of printing it.
    """
    from chiffon.credentials import TokenUnreadable, write_token

    async def work(client: Client) -> int:
        claimed = await client.claim_token()
        if file is not None:
            try:
                write_token(file, claimed.token)
            except OSError as error:
                # The old token counts no more, so that this one must not be lost.
                put(claimed.token)
                raise TokenUnreadable(file, error.strerror or str(error)) from None
        if target.is_json:
            print_json(claimed if file is None else Token.model_validate(claimed.model_dump(exclude={"token"})))
            return Exit.OK
        if file is None:
            put(claimed.token)
        say(f"This is token {claimed.token_id}, in the place of the one that was sent, which counts no more.")
        return Exit.OK

    return target.run(work)


@app.command
def revoke(token_id: UUID, /, *, target: Target = HERE) -> int:
    """Let a token count no more: within a second, on open WebSockets as well.

    ```
    chiffon tokens revoke 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    ```

    Parameters
    ----------
    token_id
        The id that `chiffon tokens` lists, which is not the token.
    """

    async def work(client: Client) -> int:
        gone = await client.revoke_token(token_id)
        if target.is_json:
            print_json(gone)
        else:
            say(f"Revoked: token {gone.token_id}.")
        return Exit.OK

    return target.run(work)


@app.command
def bootstrap(name: str, /, *, database_url: str | None = None, file: Path | None = None) -> int:
    """Make the first administrator, directly in the database, and print a token.

    ```
    CHIFFON_DATABASE_URL=postgresql://chiffon@db/chiffon chiffon tokens bootstrap ann > ann.token
    ```

    For an administrator who is there, it makes a new token: so it helps too when the last one was lost.

    Parameters
    ----------
    name
        The person's name.
    database_url
        The database; by default CHIFFON_DATABASE_URL.
    file
        Write the token there, readable for this user only, instead of printing it.
    """
    from chiffon.credentials import write_token
    from chiffon.first_identity import bootstrap as make
    from orchestrator.settings import OrchestratorSettings

    token = asyncio.run(make(OrchestratorSettings.load(database_url=database_url).database_url, name))
    if file is None:
        put(token)
    else:
        write_token(file, token)
    say(f"{name} may administer and approve. Send the token as CHIFFON_TOKEN, or its file as CHIFFON_TOKEN_FILE.")
    return Exit.OK
