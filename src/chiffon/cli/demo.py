"""`chiffon demo`: run real work on two agents of this machine and show it."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from chiffon.cli.console import say
from chiffon.cli.outcome import Exit
from chiffon.cli.stopping import run_until_stopped


def demo(
    *,
    server: Annotated[str | None, Parameter(name="--server")] = None,
    token: Annotated[str | None, Parameter(env_var="CHIFFON_TOKEN")] = None,
) -> int:
    """Run real work on two agents of this machine and show it.

    ```
    chiffon demo
    chiffon demo --server http://127.0.0.1:8420
    ```

    Starts everything in a temporary directory, dispatches commands at mixed priorities (facts about this host, a script
    that talks for some seconds, one that fails, one that is cancelled while it runs, and many short ones), shows them
    live and sums up. The exit status is 0 only when everything ended as it should have.

    Parameters
    ----------
    server
        Use an orchestrator that runs already, with two agents of type infra or more.
    token
        Who asks; else the file CHIFFON_TOKEN_FILE, or what `chiffon up` keeps for its server.
    """
    return run_until_stopped(lambda: _demo(server, token), when_stopped=Exit.INTERRUPTED)


async def _demo(server: str | None, token: str | None) -> int:
    from chiffon.client import Client
    from chiffon.demo.run import run_demo
    from chiffon.up import Plan, everything

    if server is not None:
        async with Client(server, token=token) as client:
            return Exit.OK if await run_demo(client) else Exit.ERROR
    state = _temporary_directory()
    plan = Plan(state_dir=state, agents={"infra": 2}, slots=2, port=0, durable=False)
    succeeded = False
    try:
        async with everything(plan, say) as running, Client(running.site.url, token=running.token) as client:
            succeeded = await run_demo(client)
    finally:
        if succeeded:
            shutil.rmtree(state, ignore_errors=True)
        else:
            say(f"The logs are in {state / 'logs'}")
    return Exit.OK if succeeded else Exit.ERROR


def _temporary_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="chiffon-demo-"))
    # PostgreSQL's user must be able to pass through when this runs as root.
    directory.chmod(0o711)
    return directory
