"""`chiffon agent`: run an agent on this host, and let it enrol first."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from chiffon.cli.console import say
from chiffon.cli.outcome import Exit
from chiffon.cli.parameters import collect_pairs

if TYPE_CHECKING:
    from agents.settings import AgentSettings
    from common.config import SharedSettings

app = App(name="agent", group_commands="Commands", result_action="return_value")


@app.default
def agent(
    *,
    agent_type: Annotated[str | None, Parameter(name="--type")] = None,
    slots: int | None = None,
    label: Annotated[list[str] | None, Parameter(name="--label", negative=())] = None,
    name: str | None = None,
    state_dir: Path | None = None,
    broker_url: str | None = None,
    server: str | None = None,
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None,
    log_format: Literal["json", "text"] | None = None,
) -> int:
    """Run an agent: it takes work and runs it on this host.

    ```
    chiffon agent --type infra --slots 4
    chiffon agent --label gpu_memory_gb=24 --label zone=eu
    chiffon agent --server https://chiffon.example/
    ```

    Everything can also be set in the environment (CHIFFON_AGENT_TYPE, CHIFFON_BROKER_URL, …) or in chiffon.toml; a flag
    wins. SIGTERM lets what runs come to its end for a while, then stops it.

    Parameters
    ----------
    agent_type
        The pool it belongs to; work is sent to a pool.
    slots
        How many tasks it runs at the same time.
    label
        What it has, as NAME=VALUE; VALUE may be JSON. Repeat it for more. Work can require or prefer it.
    name
        The name that is shown for it; by default the host's.
    state_dir
        Where it keeps its identity and what it could not send yet; each agent needs one of its own.
    broker_url
        The message bus: amqp://, amqps:// or postgresql://.
    server
        The orchestrator's address, http:// or https://, to take work over HTTP instead of from a message bus.
    log_level
        The least important lines that are logged.
    log_format
        How lines are logged.
    """
    import uvloop

    from agents.settings import AgentSettings
    from agents.way import check_way
    from common.config import SharedSettings
    from common.logs import configure_logs

    labels = collect_pairs(label) if label else None
    settings = AgentSettings.load(
        type=agent_type, slots=slots, labels=labels, name=name, state_dir=state_dir, server_url=server
    )
    shared = SharedSettings.load(broker_url=broker_url, log_level=log_level, log_format=log_format)
    check_way(settings, shared)
    if settings.server_url is None and shared.broker_url.startswith("memory:"):
        say("chiffon: memory:// lives inside one process, so this agent could not reach any orchestrator.")
        say("Use `chiffon up`, which runs both in one process, or name another broker with CHIFFON_BROKER_URL.")
        return Exit.ERROR
    configure_logs(service="agent", level=shared.log_level, style=shared.log_format)
    logging.captureWarnings(capture=True)
    uvloop.run(_run_until_told(settings, shared))
    return Exit.OK


async def _run_until_told(settings: "AgentSettings", shared: "SharedSettings") -> None:
    from agents.main import run_agent
    from common.garbage import settle

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    started = asyncio.Event()
    settling = asyncio.create_task(settle(started), name="settle")
    try:
        await run_agent(settings, shared, stop=stop, started=started)
    finally:
        settling.cancel()


@app.command
def enrol(
    *,
    server: Annotated[str, Parameter(env_var="CHIFFON_AGENT_SERVER_URL")],
    agent_type: Annotated[str | None, Parameter(name="--type")] = None,
    state_dir: Path | None = None,
    token_file: Path | None = None,
    token: Annotated[str | None, Parameter(env_var="CHIFFON_ENROLMENT_TOKEN", show=False)] = None,
) -> int:
    """Become an agent: exchange an enrolment token for a credential.

    ```
    chiffon agent enrol --server https://chiffon.example/ < token
    CHIFFON_ENROLMENT_TOKEN=che_… chiffon agent enrol --server https://chiffon.example/
    ```

    The token is what `chiffon agents enrol` printed; it works once. It is read from CHIFFON_ENROLMENT_TOKEN, from a
    file, or from standard input. The credential is kept in the state directory, where only this user can read it, and
    `chiffon agent` uses it from then on.

    Parameters
    ----------
    server
        The orchestrator's address.
    agent_type
        The pool that the agent belongs to, for where its state is kept by default.
    state_dir
        Where the agent is to keep its state; it must not be that of another agent.
    token_file
        The file that holds the token.
    token
        The token itself; every user of this host can see it there.
    """
    import sys

    from agents.gate.trust import remember_keys
    from agents.identity.credential import check_is_nobody, keep_credential
    from agents.over_http.enrol import NotEnrolled
    from agents.over_http.enrol import enrol as ask
    from agents.settings import AgentSettings
    from chiffon.credentials import read_token
    from chiffon.http import check_address

    check_address(server)
    settings = AgentSettings.load(type=agent_type, state_dir=state_dir, server_url=server)
    check_is_nobody(settings.state_dir)
    secret = token or (sys.stdin.readline() if token_file is None else read_token(token_file))
    if not secret.strip():
        raise NotEnrolled("There is no enrolment token: give it by standard input, file, or CHIFFON_ENROLMENT_TOKEN.")
    got = asyncio.run(ask(server, secret.strip()))
    keep_credential(settings.state_dir, got)
    if got.trusted_keys:
        remember_keys(settings.state_dir, "".join(got.trusted_keys).encode())
    elif settings.signatures == "required" and settings.trusted_keys is None:
        say("The orchestrator signs nothing, and this agent runs only what is signed: see CHIFFON_AGENT_SIGNATURES.")
    say(f"Enrolled: this is agent {got.agent_id} of type {got.agent_type}; its state is in {settings.state_dir}.")
    if got.agent_type != settings.type:
        say(f"Start it with --type {got.agent_type} --state-dir {settings.state_dir}.")
    return Exit.OK
