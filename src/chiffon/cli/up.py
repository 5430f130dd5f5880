"""`chiffon up`: start everything on this machine."""

from pathlib import Path
from typing import Annotated

from chiffon.cli.console import put, say
from chiffon.cli.options import Flag
from chiffon.cli.outcome import Exit
from chiffon.cli.stopping import run_until_stopped


def up(
    *,
    agents: int | None = None,
    agent_types: str = "infra,desktop",
    slots: int | None = None,
    port: int | None = None,
    in_process: Annotated[bool, Flag] = False,
    state_dir: Path | None = None,
) -> int:
    """Start everything on this machine and stay until stopped.

    ```
    chiffon up
    chiffon up --agents 4 --slots 8 --port 0
    chiffon up --in-process
    CHIFFON_BROKER_URL=amqp://guest:guest@127.0.0.1/ chiffon up
    ```

    Starts an orchestrator and agents, with a PostgreSQL of its own unless CHIFFON_DATABASE_URL names one; that
    PostgreSQL is also the message bus, unless CHIFFON_BROKER_URL names another. What is in the database is kept for the
    next time. Ctrl-C stops everything in order; a second one kills it.

    Parameters
    ----------
    agents
        How many agents of each type; by default 2 of the first type and 1 of each other.
    agent_types
        The types of agents, separated by commas. By default those to which work is routed as the settings come.
    slots
        How many tasks an agent runs at the same time.
    in_process
        Run the orchestrator and the agents inside this process, over a message bus in its memory: memory://.
    port
        Where the orchestrator listens; 0 is any free port. By default 8420.
    state_dir
        Where data and logs are kept. By default /var/lib/chiffon for root, else ~/.local/state/chiffon.
    """
    from chiffon.parts import first_failure
    from chiffon.up import Plan, default_state_dir, everything, warn_of_root

    plan = Plan(
        state_dir=(state_dir or default_state_dir()).expanduser().resolve(),
        agents=_counts(agent_types, agents),
        slots=slots,
        port=port,
        in_process=in_process,
    )

    async def work() -> int:
        async with everything(plan, say) as running:
            warn_of_root(say)
            url = running.site.url
            named = "" if url == "http://127.0.0.1:8420" else f"--server {url} "
            put(f"API      {url}")
            put(f"Docs     {url}/docs")
            put(f"Logs     {running.site.logs}")
            if running.token is not None:
                put(f"Token    {running.site.token_file}")
            put(f"Try      chiffon dispatch {named}shell_script --wait -- uname -a")
            say("Ready. Ctrl-C stops everything.")
            failure = await first_failure(running.parts)
            say(f"chiffon: {failure}")
            return Exit.ERROR

    return run_until_stopped(work)


def _counts(agent_types: str, each: int | None) -> dict[str, int]:
    """Return how many agents of each type are started."""
    names = [name.strip() for name in agent_types.split(",")]
    return {name: (2 if name == names[0] else 1) if each is None else each for name in names}
