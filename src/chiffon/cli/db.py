"""`chiffon db`: prepare the orchestrator's database."""

import asyncio
from typing import Annotated

from cyclopts import App

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import AS_TABLE, Flag, Printing
from chiffon.cli.outcome import Exit

app = App(name="db", help="Prepare the orchestrator's database.", result_action="return_value")


@app.command
def upgrade(*, sql: Annotated[bool, Flag] = False, database_url: str | None = None) -> int:
    """Bring the tables up to this version.

    ```
    CHIFFON_DATABASE_URL=postgresql://chiffon@db/chiffon chiffon db upgrade
    chiffon db upgrade --sql > upgrade.sql
    ```

    Parameters
    ----------
    sql
        Print the SQL instead of running it; nothing is connected.
    database_url
        The database; by default CHIFFON_DATABASE_URL.
    """
    from chiffon import ledger
    from orchestrator.database.version import HEAD

    if sql:
        from orchestrator.database.migrate import upgrade_sql

        put(*upgrade_sql().split("\n"))
        return Exit.OK
    asyncio.run(ledger.upgrade(_url(database_url)))
    say(f"The database is at version {HEAD}.")
    return Exit.OK


@app.command
def current(*, database_url: str | None = None, printing: Printing = AS_TABLE) -> int:
    """Print the version of the tables; exit status 1 when it is not the one that this program wants.

    ```
    chiffon db current
    ```

    Parameters
    ----------
    database_url
        The database; by default CHIFFON_DATABASE_URL.
    """
    from chiffon import ledger
    from orchestrator.database.version import HEAD

    found = asyncio.run(ledger.current_version(_url(database_url)))
    if printing.is_json:
        print_json({"current": found, "wanted": HEAD})
    else:
        put(found or "empty")
    return Exit.OK if found == HEAD else Exit.ERROR


def _url(given: str | None) -> str:
    from orchestrator.settings import OrchestratorSettings

    return OrchestratorSettings.load(database_url=given).database_url
