"""`chiffon audit`: check that the audit log is what was written, and ask it who did what."""

import asyncio
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import App, Parameter

from chiffon.cli.console import is_terminal, print_json, put, say
from chiffon.cli.options import AS_TABLE, HERE, Printing, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.show import audit_line
from chiffon.cli.streams import is_read
from chiffon.client import Client

Ending = Literal["completed", "failed", "cancelled", "refused"]

SAY_EVERY = 1_000_000

app = App(
    name="audit",
    group_commands="Commands",
    help="Check that the audit log is what was written, and ask it who did what.",
    result_action="return_value",
)


@app.command
def verify(
    *,
    checkpoints: Path | None = None,
    keys: Path | None = None,
    database_url: str | None = None,
    printing: Printing = AS_TABLE,
) -> int:
    """Check the whole audit log, and name the first event that was touched; exit status 1 when one was.

    ```
    chiffon audit verify --checkpoints /mnt/elsewhere/checkpoints.jws --keys trusted_keys.pem
    ```

    It reads the database directly. Without checkpoints, a log that was rewritten by somebody who computed the hashes
    anew is not noticed.

    Parameters
    ----------
    checkpoints
        The file of checkpoints, best a copy that the database's administrator cannot write; by default
        CHIFFON_AUDIT_CHECKPOINTS_FILE.
    keys
        The public keys that signed them: a file in PEM, or a directory of keys; by default CHIFFON_SIGNING_KEYS_DIR.
    database_url
        The database; by default CHIFFON_DATABASE_URL.
    """
    from chiffon import audit_check
    from orchestrator.settings import OrchestratorSettings

    settings = OrchestratorSettings.load(database_url=database_url)
    file, place = (
        None if path is None else path.expanduser()
        for path in (checkpoints or settings.audit_checkpoints_file, keys or settings.signing_keys_dir)
    )
    report = asyncio.run(audit_check.verify(settings.database_url, file, place, progress=_progress))
    if printing.is_json:
        print_json(report.as_json())
    else:
        put(*report.lines())
    return Exit.OK if report.finding is None else Exit.ERROR


@app.command
def query(
    *,
    actor: str | None = None,
    task: UUID | None = None,
    trace: UUID | None = None,
    agent: UUID | None = None,
    kind: Annotated[list[str] | None, Parameter(negative=())] = None,
    result: Annotated[list[Ending] | None, Parameter(negative=())] = None,
    work_type: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after: int = 0,
    limit: int | None = None,
    target: Target = HERE,
) -> int:
    """Print who did what, oldest first; with -o jsonl as an export, one event a line.

    ```
    chiffon audit query --actor alice --since 2026-11-01
    chiffon audit query --result failed --result refused --work-type shell_script
    chiffon audit query -o jsonl > audit.jsonl
    ```

    Parameters
    ----------
    actor
        Only what this caller, agent or loop did.
    task
        Only events of this task.
    trace
        Only events of this trace.
    agent
        Only events of this agent.
    kind
        Only events of this kind, for example task.cancelled. Repeat it for more.
    result
        Only ends like this. Repeat it for more.
    work_type
        Only events of tasks of this type.
    since
        Only events from then on; without a zone it is the time here.
    until
        Only events before then.
    after
        Only events numbered above this.
    limit
        At most this many; by default all.
    """
    question = {
        "actor": actor,
        "task_id": task,
        "trace_id": trace,
        "agent_id": agent,
        "kind": kind,
        "result": result,
        "work_type": work_type,
        "since": since and since.astimezone(),
        "until": until and until.astimezone(),
    }

    async def work(client: Client) -> int:
        async with aclosing(client.audit(after=after, limit=limit, **question)) as events:
            async for event in events:
                if target.is_json:
                    print_json(event)
                else:
                    put(audit_line(event))
                if not is_read():
                    break
        return Exit.OK

    return target.run(work)


def _progress(seen: int, total: int) -> None:
    if is_terminal("stderr") or seen % SAY_EVERY == 0:
        say(f"{seen} of {total} events")
