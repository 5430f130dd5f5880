"""Start everything on one machine: PostgreSQL, an orchestrator, agents; and stop it again, in the opposite order.

The database is `CHIFFON_DATABASE_URL` when that is set, otherwise an embedded PostgreSQL. The broker is
`CHIFFON_BROKER_URL` when that is set, otherwise the same PostgreSQL. With `memory://`, or in process, the orchestrator
and the agents share this process, because that broker lives in one.
"""

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agents.settings import AgentSettings
from chiffon import ledger
from chiffon.child_processes import ChildProcesses
from chiffon.client import Client
from chiffon.credentials import kept_for
from chiffon.embedded_postgres import embedded_postgres
from chiffon.errors import ServerUnreachable
from chiffon.first_identity import own_token
from chiffon.parts import Mode, Part, Site, until
from chiffon.places import check_port, free_port, sole_owner
from common.config import SharedSettings
from common.errors import StartupRefused
from common.messages import AgentStatus
from orchestrator.settings import OrchestratorSettings
from orchestrator.signing.first_key import ensure_key, public_keys

START_LIMIT = timedelta(seconds=60)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start: `agents` says how many of each type.

    `port` None is the one of the settings, 0 a free one; not `durable` is for what is thrown away. `services_file` and
    `compose_root` take the place of the settings of these names.
    """

    state_dir: Path
    agents: Mapping[str, int]
    slots: int | None = None
    port: int | None = None
    durable: bool = True
    in_process: bool = False
    services_file: Path | None = None
    compose_root: Path | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """Everything is up: the orchestrator answers at `site.url` and all agents have registered.

    `token` is that of whoever started it, in the file `site.token_file`; None where nobody is asked for one.
    """

    site: Site
    parts: Sequence[Part]
    token: str | None = field(default=None, repr=False)


@asynccontextmanager
async def everything(plan: Plan, say: Say) -> AsyncIterator[Running]:
    """Start everything and stop it at the end. Raises `StartupRefused` when something does not start."""
    settings = OrchestratorSettings.load(port=plan.port)
    shared = SharedSettings.load()
    port = settings.port or free_port(settings.host)
    check_port(settings.host, port)
    parts: list[Part] = []
    async with AsyncExitStack() as stack:
        stack.enter_context(sole_owner(plan.state_dir))
        logs = plan.state_dir / "logs"
        for private in (logs, plan.state_dir / "agents", plan.state_dir / "audit"):
            private.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            (plan.state_dir / "agents").chmod(0o711)  # for the programs of agents with `run_as`
        database_url = settings.database_url
        if "database_url" not in settings.model_fields_set:
            say(f"Starting PostgreSQL in {plan.state_dir} …")
            embedded = embedded_postgres(plan.state_dir, log=logs / "postgres.log", durable=plan.durable)
            database_url, postgres = await stack.enter_async_context(embedded)
            parts.append(postgres)
        await ledger.upgrade(database_url)
        site = Site(
            host=settings.host,
            port=port,
            database_url=database_url,
            broker_url=_broker_url(plan, shared, database_url),
            state_dir=plan.state_dir,
            agent_names=_names(plan),
            slots=plan.slots,
            signing_keys_dir=settings.signing_keys_dir,
            checkpoints_file=settings.audit_checkpoints_file,
            artifacts_dir=settings.artifacts_dir if "artifacts_dir" in settings.model_fields_set else None,
            services_file=plan.services_file,
            compose_root=plan.compose_root,
        )
        make_keys(site)
        token = None
        if settings.authentication == "required":
            token = await own_token(database_url, site.token_file)
            stack.enter_context(kept_for(site.url, site.token_file))
        mode = _mode(site)
        agents = "1 agent" if len(site.agent_names) == 1 else f"{len(site.agent_names)} agents"
        say(f"Starting the orchestrator and {agents} …")
        async with Client(site.url, token=token) as client:
            since = datetime.now(UTC)
            parts.append(await stack.enter_async_context(mode.orchestrator(site)))
            await until(lambda: _is_ready(client), parts=parts, timeout=START_LIMIT, what="Its start", see=logs)
            parts.extend(await stack.enter_async_context(mode.agents(site)))
            wanted = len(site.agent_names)
            await until(
                lambda: _are_there(client, wanted, since),
                parts=parts,
                timeout=START_LIMIT,
                what="The registration of all agents",
                see=logs,
            )
        try:
            yield Running(site, parts, token)
        finally:
            say("Stopping …")


def default_state_dir() -> Path:
    """Return where `up` keeps its state: below /var/lib for root, whose home PostgreSQL's user cannot enter."""
    if os.geteuid() == 0:
        return Path("/var/lib/chiffon")
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "chiffon"


def warn_of_root(say: Say) -> None:
    """Say when work could read the keys of this installation. Raises `InvalidSettings`."""
    settings = AgentSettings.load()
    if os.geteuid() == 0 and settings.run_as is None and not settings.confinement.sandbox:
        say(
            "Warning: work runs as root, which owns the keys and tokens of this installation. Name another user in "
            "CHIFFON_AGENT_RUN_AS ([agent] run_as), or demand the sandbox: "
            "CHIFFON_AGENT_CONFINEMENT='{\"sandbox\": true}'."
        )


def make_keys(site: Site) -> None:
    """Have the orchestrator sign, and its agents know its keys. Raises `StartupRefused`."""
    try:
        ensure_key(site.signing_keys)
        site.trusted_keys.unlink(missing_ok=True)  # one that others could write stays so when it is only written anew
        site.trusted_keys.write_bytes(public_keys(site.signing_keys))
    except OSError as error:
        raise StartupRefused(f"The signing keys in {site.signing_keys} cannot be made: {error.strerror}.") from error


def _broker_url(plan: Plan, shared: SharedSettings, database_url: str) -> str:
    is_given = "broker_url" in shared.model_fields_set
    if not plan.in_process:
        return shared.broker_url if is_given else database_url
    if is_given and not shared.broker_url.startswith("memory:"):
        raise StartupRefused(
            "--in-process needs the message bus in memory, and CHIFFON_BROKER_URL names another. Leave out one of them."
        )
    return "memory://"


def _mode(site: Site) -> Mode:
    if not site.broker_url.startswith("memory:"):
        return ChildProcesses()
    from chiffon.one_process import OneProcess

    return OneProcess()


def _names(plan: Plan) -> tuple[tuple[str, str], ...]:
    return tuple((kind, f"{kind}-{number}") for kind, count in plan.agents.items() for number in range(1, count + 1))


async def _is_ready(client: Client) -> bool:
    try:
        return await client.ready()
    except ServerUnreachable:
        return False


async def _are_there(client: Client, wanted: int, since: datetime) -> bool:
    # Agents of an earlier run keep their rows; those of this one have started since.
    agents = [agent for agent in await client.agents() if agent.started_at >= since]
    return sum(agent.status is not AgentStatus.OFFLINE for agent in agents) >= wanted
