"""The broker is the attacker's, with administrator's rights: nothing runs but what the orchestrator signed, once."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.main import run_agent
from agents.settings import AgentSettings
from common.broker.base import Address, Broker, Outgoing
from common.broker.connect import open_broker
from common.broker.topology import control_address, work_address
from common.config import SharedSettings
from common.errors import ErrorCode
from common.messages import Grant, GrantedTask, ResultStatus, WorkRequest
from common.signing.claims import SignedTask, sign_grant
from common.signing.keys import PrivateKey
from tests.eventually import eventually
from tests.fuzz.bounds import MORE
from tests.hand_made_jws import compact, decoded, header_of
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator, work_message

FLOOD = 1000 * MORE
SEED = 20261125


class Site:
    """One agent that trusts one key, an orchestrator that has it, and what programs wrote on the agent's host."""

    def __init__(self, broker: Broker, url: str, folder: Path) -> None:
        self.broker = broker
        self.orchestrator = ScriptedOrchestrator(broker)
        self.orchestrator.key = PrivateKey.new()
        self.recorded: list[Grant] = []
        self.orchestrator.answer_with = self.record
        self._url = url
        self._folder = folder
        self.written = folder / "written"
        self.written.touch()
        (folder / "trusted.pem").write_bytes(self.orchestrator.key.public.pem())

    def record(self, grant: Grant) -> Grant:
        self.recorded.append(grant)
        return grant

    def script(self, word: str) -> str:
        return f"echo {word} >> {self.written}"

    @property
    def ran(self) -> list[str]:
        """What programs say that they ran."""
        return self.written.read_text().split()

    @property
    def begun(self) -> list[str]:
        """The tasks that the agent's journal says were begun."""
        journal = self._folder / "agent" / "journal.jsonl"
        lines = [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
        return [line["task_id"] for line in lines if line["event"] == "started"]

    @asynccontextmanager
    async def agent(self) -> AsyncIterator[None]:
        settings = AgentSettings.load(
            state_dir=self._folder / "agent",
            trusted_keys=self._folder / "trusted.pem",
            signatures="required",
            slots=4,
            heartbeat_seconds=0.5,
            stop_grace_seconds=0,
        )
        stop = asyncio.Event()
        ended = asyncio.create_task(run_agent(settings, SharedSettings(broker_url=self._url), stop=stop))
        try:
            seen = len(self.orchestrator.heartbeats)
            await eventually(lambda: len(self.orchestrator.heartbeats) > seen or ended.done())
            yield
        finally:
            stop.set()
            await ended

    async def inject(self, *bodies: bytes) -> None:
        """Put messages straight into the agent's work queue."""
        await self._put(work_address("infra", self.orchestrator.agent_id), bodies)

    async def inject_as_orders(self, *bodies: bytes) -> None:
        """Put messages straight into the agent's control queue."""
        await self._put(control_address(self.orchestrator.agent_id), bodies)

    async def _put(self, address: Address, bodies: Sequence[bytes]) -> None:
        for begin in range(0, len(bodies), 100):
            await self.broker.publish(*(Outgoing(address, body, "x") for body in bodies[begin : begin + 100]))

    async def emptied(self) -> None:
        queues = (self.orchestrator.work_queue, f"control.{self.orchestrator.agent_id}")

        async def is_empty() -> bool:
            return not any([await self.broker.depth(queue) for queue in queues])

        await eventually(is_empty, timeout=60)


@pytest.fixture
async def site(amqp_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_broker(amqp_url, name="attacker") as broker:
        opened = Site(broker, amqp_url, tmp_path)
        async with opened.orchestrator.listening():
            yield opened


def forged(site: Site, like: GrantedTask, word: str) -> GrantedTask:
    """Return a grant of other work, as if it were that of an honest one."""
    work = WorkRequest(task_id=like.work.task_id, work_type="shell_script", parameters={"script": site.script(word)})
    return like.model_copy(update={"work": work})


def mutated(body: bytes, chance: random.Random) -> bytes:
    """Change, remove or insert some bytes."""
    changed = bytearray(body)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(changed))
        match chance.randrange(3):
            case 0:
                changed[place] ^= 1 << chance.randrange(8)
            case 1:
                del changed[place]
            case _:
                changed.insert(place, chance.randrange(256))
    return bytes(changed)


async def test_of_thousands_of_forged_mutated_and_repeated_messages_none_is_run(site: Site) -> None:
    chance, thief = random.Random(SEED), PrivateKey.new()
    async with site.agent():
        honest = [await site.orchestrator.shell(site.script(f"honest{n}")) for n in range(5)]
        for task_id in honest:
            assert (await site.orchestrator.ended(task_id, timeout=60)).status is ResultStatus.COMPLETED
        originals = [work_message(grant) for grant in site.recorded]
        strangers = []
        for n in range(200):
            session = (uuid4(), site.orchestrator.account.session)[n % 2]
            grant = forged(site, site.recorded[0].tasks[0], "forged").model_copy(update={"claim_id": session})
            grant = grant.model_copy(update={"work": grant.work.model_copy(update={"task_id": uuid4()})})
            thieves = _signed(thief, grant, site.orchestrator.agent_id, site.recorded[0].credit)
            signature = (None, site.recorded[0].signature, thieves)[n % 3]
            strangers.append(work_message(Grant(tasks=[grant], signature=signature, credit=site.recorded[0].credit)))
        flood = [mutated(chance.choice(originals), chance) for _ in range(FLOOD)] + strangers + originals * 40
        chance.shuffle(flood)

        await site.inject(*flood)
        await site.inject_as_orders(*flood[:200])
        await site.emptied()
        last = await site.orchestrator.shell(site.script("last"))
        assert (await site.orchestrator.ended(last, timeout=60)).status is ResultStatus.COMPLETED

    assert sorted(site.ran) == [*(f"honest{n}" for n in range(5)), "last"]
    assert sorted(site.begun) == sorted(map(str, [*honest, last]))


@pytest.mark.parametrize("attack", ["unsigned", "edited", "by_a_thief", "for_another_agent", "of_another_task"])
async def test_a_grant_that_was_asked_for_is_not_run_when_it_was_forged(attack: str, site: Site) -> None:
    thief = PrivateKey.new()

    def forge(honest: Grant) -> Grant:
        evil = forged(site, honest.tasks[0], "evil")
        agent_id = uuid4() if attack == "for_another_agent" else site.orchestrator.agent_id
        other = evil.model_copy(update={"work": evil.work.model_copy(update={"task_id": uuid4()})})
        ours = site.orchestrator.key
        assert ours is not None
        signature = {
            "unsigned": None,
            "edited": honest.signature,
            # A key that the agent does not know yet is waited for; the thief gives his the name of one that it knows.
            "by_a_thief": _by_a_thief(thief, _signed(ours, evil, agent_id, honest.credit)),
            "for_another_agent": _signed(ours, evil, agent_id, honest.credit),
            "of_another_task": _signed(ours, other, agent_id, honest.credit),
        }[attack]
        return Grant(tasks=[evil], signature=signature, credit=honest.credit)

    site.orchestrator.answer_with = forge
    async with site.agent():
        result = await site.orchestrator.ended(await site.orchestrator.shell(site.script("honest")))

    assert (result.status, result.retryable, result.started) == (ResultStatus.FAILED, False, False), "it goes back"
    assert result.error_code == ErrorCode.AUTHENTICATION_FAILED
    assert (result.error_message or "").startswith("The agent does not run this grant: ")
    assert (site.ran, site.begun) == ([], [])


async def test_a_lease_is_not_made_younger_than_it_was_signed(site: Site) -> None:
    async with site.agent():
        older = site.orchestrator.account.number
        await eventually(lambda: site.orchestrator.account.number > older)
        newer = site.orchestrator.account.number
        site.orchestrator.answer_with = lambda honest: honest.model_copy(update={"credit": newer})
        site.orchestrator.is_silent = True
        task_id = await site.orchestrator.shell(site.script("honest"))

        await site.orchestrator.send_grant(site.orchestrator.grant_of(task_id), credit=older)

        result = await site.orchestrator.ended(task_id)
    assert result.error_code == ErrorCode.AUTHENTICATION_FAILED
    assert (site.ran, site.begun) == ([], [])


async def test_a_recorded_grant_is_not_run_again_after_a_restart(site: Site) -> None:
    async with site.agent():
        task_id = await site.orchestrator.shell(site.script("once"))
        await site.orchestrator.ended(task_id)
    [recorded] = site.recorded
    async with site.agent():
        await site.inject(work_message(recorded))
        last = await site.orchestrator.shell(site.script("last"))
        await site.orchestrator.ended(last)

    assert site.ran == ["once", "last"]
    # Nothing of it goes back as untouched.
    assert [result.started for result in site.orchestrator.results[task_id]] == [True]


async def test_a_grant_that_was_withheld_until_the_agent_had_restarted_is_not_run(site: Site) -> None:
    async with site.agent():
        site.orchestrator.is_silent = True
        task_id = await site.orchestrator.shell(site.script("withheld"))
        grant, credit = site.orchestrator.grant_of(task_id), site.orchestrator.account.number
        signature = site.orchestrator.signature(grant, credit=credit)
    async with site.agent():
        await site.inject(work_message(Grant(tasks=[grant], signature=signature, credit=credit)))
        result = await site.orchestrator.ended(task_id)

    assert (result.error_code, result.retryable, result.started) == (ErrorCode.AGENT_UNAVAILABLE, True, False)
    assert (site.ran, site.begun) == ([], [])


def _by_a_thief(thief: PrivateKey, signature: str) -> str:
    """Return what a signature says, signed by another key under the name of the first."""
    return compact(header_of(signature), decoded(signature.split(".")[1]), thief.key.sign)


def _signed(key: PrivateKey, grant: GrantedTask, agent_id: UUID, credit: int | None) -> str:
    tasks, valid = [SignedTask.of(grant)], timedelta(minutes=1)
    return sign_grant(key, agent_id, tasks, now=datetime.now(UTC), valid=valid, credit=credit)
