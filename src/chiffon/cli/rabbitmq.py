"""`chiffon rabbitmq`: set RabbitMQ up, with a user of its own for each agent."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

from cyclopts import App, Parameter

from chiffon.cli.console import put, say
from chiffon.cli.options import Flag
from chiffon.cli.outcome import Exit, Usage

if TYPE_CHECKING:
    from chiffon.rabbitmq.settings import RabbitmqSettings
    from chiffon.rabbitmq.steps import Step

app = App(name="rabbitmq", help="Set RabbitMQ up, with a user of its own for each agent.", result_action="return_value")

ByHand = Annotated[bool, Parameter(name="--print", negative=())]


@app.command
def setup(*, new_password: Annotated[bool, Flag] = False, write: Path | None = None, by_hand: ByHand = False) -> int:
    """Make the virtual host, exchanges, queues, policies and the orchestrator's user; say what was changed.

    ```
    CHIFFON_RABBITMQ_ADMIN_PASSWORD_FILE=admin chiffon rabbitmq setup --write orchestrator.env
    chiffon rabbitmq setup --print
    ```

    It can be repeated: what is right stays as it is. The URL for the orchestrator is printed when its user is made.

    Parameters
    ----------
    new_password
        Give the orchestrator's user a new password, and close its connections.
    write
        Write the URL into this file, which only you can read, instead of printing it.
    by_hand
        Print the commands for doing it by hand; nothing is connected.
    """
    from chiffon.rabbitmq import plan
    from chiffon.rabbitmq.credentials import new_password as make_password
    from common.config import SharedSettings

    settings, password = _settings(), make_password()
    steps = plan.setup(
        vhost=settings.vhost,
        user=settings.user,
        password=password,
        new_password=new_password,
        admin=settings.admin_user,
        queue_type=SharedSettings.load().queue_type,
    )
    return _carry_out(steps, settings, by_hand=by_hand, user=settings.user, password=password, write=write)


@app.command
def add_agent(
    agent_id: UUID,
    *,
    agent_type: Annotated[str, Parameter(name="--type")] = "infra",
    write: Path | None = None,
    by_hand: ByHand = False,
) -> int:
    """Make one agent's user and queues, with rights to nothing else.

    ```
    chiffon rabbitmq add-agent 7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11 --type infra --write agent.env
    ```

    Parameters
    ----------
    agent_id
        The agent's id, from its enrolment: an agent that has not enrolled is believed nothing.
    agent_type
        The pool that it enrolled for; it may read the work of no other.
    write
        Write the URL into this file, which only you can read, instead of printing it.
    by_hand
        Print the commands for doing it by hand; nothing is connected.
    """
    import re

    from chiffon.rabbitmq import plan
    from chiffon.rabbitmq.credentials import new_password
    from common.broker.rabbitmq_user import user_of_agent
    from common.config import SharedSettings
    from common.work import AGENT_TYPE_PATTERN

    if not re.fullmatch(AGENT_TYPE_PATTERN, agent_type):
        raise Usage(f"--type {agent_type!r} is no type of agent: it must match {AGENT_TYPE_PATTERN}.")
    settings, password = _settings(), new_password()
    queue_type = SharedSettings.load().queue_type
    steps = plan.add_agent(agent_id, agent_type, vhost=settings.vhost, password=password, queue_type=queue_type)
    user = user_of_agent(agent_id)
    return _carry_out(steps, settings, by_hand=by_hand, user=user, password=password, write=write)


@app.command
def rotate_agent(agent_id: UUID, *, write: Path | None = None, by_hand: ByHand = False) -> int:
    """Give an agent's user a new password and close its connections; what it runs goes on meanwhile.

    ```
    chiffon rabbitmq rotate-agent 7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11 --write agent.env
    ```

    Parameters
    ----------
    agent_id
        The agent's id.
    write
        Write the URL into this file, which only you can read, instead of printing it.
    by_hand
        Print the commands for doing it by hand; nothing is connected.
    """
    from chiffon.rabbitmq import plan
    from chiffon.rabbitmq.credentials import new_password
    from common.broker.rabbitmq_user import user_of_agent

    settings, password = _settings(), new_password()
    steps = plan.rotate_agent(agent_id, password=password)
    user = user_of_agent(agent_id)
    return _carry_out(steps, settings, by_hand=by_hand, user=user, password=password, write=write)


@app.command
def remove_agent(agent_id: UUID, *, by_hand: ByHand = False) -> int:
    """Delete an agent's user, which closes its connections, and its queues.

    ```
    chiffon rabbitmq remove-agent 7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11
    ```

    Parameters
    ----------
    agent_id
        The agent's id.
    by_hand
        Print the commands for doing it by hand; nothing is connected.
    """
    from chiffon.rabbitmq import plan
    from orchestrator.settings import OrchestratorSettings

    settings, agent_types = _settings(), OrchestratorSettings.load().agent_types
    steps = plan.remove_agent(agent_id, vhost=settings.vhost, agent_types=agent_types)
    status = _carry_out(steps, settings, by_hand=by_hand)
    if not by_hand:
        say("What it ran is given to others when its leases end. If it was enrolled, revoke its identity, too.")
    return status


def _carry_out(
    steps: "Sequence[Step]",
    settings: "RabbitmqSettings",
    *,
    by_hand: bool,
    user: str = "",
    password: str = "",
    write: Path | None = None,
) -> int:
    """Print the commands, or make the steps true, say what was changed, and hand out a new credential."""
    from chiffon.rabbitmq.commands import command_of
    from chiffon.rabbitmq.credentials import broker_url, write_private

    if by_hand:
        put(*map(command_of, steps))
        return Exit.OK
    changed = asyncio.run(_apply(steps, settings))
    for about in changed:
        say(f"changed: {about}")
    say(f"{len(changed)} changed, and all is as it should be." if changed else "All was as it should be.")
    if not {f"user {user}", f"password of user {user}"} & set(changed):
        if user:
            say(f"The user {user} keeps its password, which nobody can read again.")
        return Exit.OK
    line = f"CHIFFON_BROKER_URL={broker_url(settings.amqp_url, user=user, password=password, vhost=settings.vhost)}\n"
    if write is None:
        put(line.rstrip("\n"))
    else:
        write_private(write, line)
        say(f"Its URL is in {write}.")
    return Exit.OK


async def _apply(steps: "Sequence[Step]", settings: "RabbitmqSettings") -> list[str]:
    from chiffon.rabbitmq.management import open_management

    async with open_management(settings) as management:
        return await management.apply(steps)


def _settings() -> "RabbitmqSettings":
    from chiffon.rabbitmq.settings import RabbitmqSettings

    return RabbitmqSettings.load()
