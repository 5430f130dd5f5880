"""`chiffon spool`: dispatch what is dropped into a directory."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from chiffon.cli.options import Flag
from chiffon.cli.outcome import Exit
from chiffon.cli.stopping import run_until_stopped
from chiffon.client import DEFAULT_SERVER


def spool(
    directory: Path,
    /,
    *,
    concurrency: Annotated[int, Parameter(validator=Number(gte=1, lte=1000))] = 8,
    once: Annotated[bool, Flag] = False,
    max_bytes: Annotated[int, Parameter(validator=Number(gte=1))] = 1_000_000,
    server: Annotated[str, Parameter(env_var="CHIFFON_SERVER")] = DEFAULT_SERVER,
    token: Annotated[str | None, Parameter(env_var="CHIFFON_TOKEN")] = None,
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None,
    log_format: Literal["json", "text"] | None = None,
) -> int:
    """Dispatch what is dropped into a directory and write the results back.

    ```
    chiffon spool /var/spool/chiffon
    chiffon spool ./orders --once --concurrency 2
    ```

    Files DIRECTORY/incoming/*.json are bodies of a dispatch; write them elsewhere and rename them in. Results are
    written to outgoing; what cannot be dispatched goes to failed, beside a file with the reason. The same file, by
    name and content, is dispatched once, whatever is stopped or killed in between. Ctrl-C stops it; what was
    dispatched goes on, and its result is written at the next start.

    Parameters
    ----------
    directory
        Where the folders incoming, processing, outgoing and failed are; made when they are not there.
    concurrency
        How many files are worked on at the same time; those of one ordering_key one after another.
    once
        End when incoming is empty.
    max_bytes
        Larger files go to failed.
    server
        Address of the orchestrator.
    token
        Who asks; else the file CHIFFON_TOKEN_FILE, or what `chiffon up` keeps for its server.
    log_level
        The least important lines that are logged.
    log_format
        How lines are logged.
    """
    from chiffon.spool.run import Plan, run_spool
    from common.config import SharedSettings
    from common.logs import configure_logs

    shared = SharedSettings.load(log_level=log_level, log_format=log_format)
    configure_logs(service="spool", level=shared.log_level, style=shared.log_format)
    plan = Plan(directory.expanduser().resolve(), concurrency=concurrency, once=once, limit=max_bytes)

    async def work() -> int:
        await run_spool(plan, server, token=token)
        return Exit.OK

    return run_until_stopped(work)
