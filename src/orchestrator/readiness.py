"""Whether this orchestrator has everything that it needs, each thing on its own."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from common.broker.base import Broker, BrokerUnavailable
from common.errors import StartupRefused
from common.loop import Health
from orchestrator.database.pool import Pool, ping
from orchestrator.database.version import HEAD, version_of
from orchestrator.loops.probe import SendProbe
from orchestrator.signing.signer import Signer
from orchestrator.why.service import Failures

ASK_SECONDS = 2


async def check_schema(pool: Pool) -> None:
    """Raise `StartupRefused` unless the ledger has the schema that this program was written for."""
    async with pool.acquire() as db:
        version = await version_of(db)
    if version != HEAD:
        raise StartupRefused(
            f"The database's schema is at version {version or 'none'}, this program needs {HEAD}. "
            "Run `chiffon db upgrade`."
        )


async def failures(broker: Broker, health: Health) -> Failures:
    """Say what keeps work from the agents, as far as this process knows."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            await broker.check()
    except (BrokerUnavailable, TimeoutError) as error:
        return Failures(broker=str(error) or f"no answer within {ASK_SECONDS} s")
    return Failures(giving=health.failures().get("give_work"))


def checks(
    pool: Pool, broker: Broker, probe: SendProbe, health: Health, signer: Signer | None
) -> Mapping[str, Callable[[], Awaitable[str]]]:
    """Return the checks of `/ready` by name; one that is not well raises, and its message says why."""

    async def check_broker() -> str:
        await broker.check()
        return ""

    async def check_database() -> str:
        await ping(pool, seconds=5)
        return ""

    async def check_version() -> str:
        await check_schema(pool)
        return HEAD

    async def check_loops() -> str:
        failed = {name: failure for name, failure in health.failures().items() if failure is not None}
        if failed:
            raise RuntimeError("; ".join(f"{name}: {failure}" for name, failure in failed.items()))
        return ", ".join(sorted(health.failures()))

    async def check_signatures() -> str:
        return "off: only agents that ask for no signatures run anything" if signer is None else signer.key.key_id

    return {
        "broker": check_broker,
        "database": check_database,
        "schema": check_version,
        "loops": check_loops,
        "probe": probe.check,
        "signatures": check_signatures,
    }
