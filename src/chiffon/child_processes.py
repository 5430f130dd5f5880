"""Run the orchestrator and the agents as processes of their own, as in production."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from chiffon.parts import Part, Site
from chiffon.processes import Child

# An agent lets its work come to an end before it leaves; see `stop_grace_seconds` and `kill_grace_seconds`.
AGENT_STOP_LIMIT = timedelta(seconds=60)
ORCHESTRATOR_STOP_LIMIT = timedelta(seconds=20)


class ChildProcesses:
    """The mode in which every part is a child process with a log file."""

    @asynccontextmanager
    async def orchestrator(self, site: Site) -> AsyncIterator[Part]:
        flags = ["--host", site.host, "--port", str(site.port)]
        child = await _start("orchestrator", site, ["server", *flags])
        try:
            yield child
        finally:
            await child.stop(ORCHESTRATOR_STOP_LIMIT)

    @asynccontextmanager
    async def agents(self, site: Site) -> AsyncIterator[Sequence[Part]]:
        children: list[Child] = []
        try:
            for agent_type, name in site.agent_names:
                flags = ["--type", agent_type, "--state-dir", str(site.agent_state(name))]
                flags += [] if site.slots is None else ["--slots", str(site.slots)]
                children.append(await _start(name, site, ["agent", *flags], may_leave=True))
            yield children
        finally:
            await asyncio.gather(*(child.stop(AGENT_STOP_LIMIT) for child in children))


async def _start(name: str, site: Site, arguments: Sequence[str], *, may_leave: bool = False) -> Child:
    # URLs may hold passwords, and the environment of a process is not for all to see, as its arguments are.
    environment = {
        # All parts share the user of one URL, so there is nobody to tell apart.
        "CHIFFON_BROKER_IDENTITIES": "trusted",
        **os.environ,
        "CHIFFON_DATABASE_URL": site.database_url,
        "CHIFFON_BROKER_URL": site.broker_url,
        "CHIFFON_SIGNING_KEYS_DIR": str(site.signing_keys),
        "CHIFFON_AUDIT_CHECKPOINTS_FILE": str(site.checkpoints),
        "CHIFFON_ARTIFACTS_DIR": str(site.artifacts),
        "CHIFFON_AGENT_NAME": name,
        "CHIFFON_AGENT_TRUSTED_KEYS": str(site.trusted_keys),
    }
    if site.services_file is not None:
        environment["CHIFFON_SERVICES_FILE"] = str(site.services_file)
    if site.compose_root is not None:
        environment["CHIFFON_AGENT_COMPOSE_ROOT"] = str(site.compose_root)
    command = [sys.executable, "-m", "chiffon", *arguments]
    return await Child.start(name, command, log=site.logs / f"{name}.log", environment=environment, may_leave=may_leave)
