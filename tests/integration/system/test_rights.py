"""Every agent has a user of its own at RabbitMQ, and a stolen credential is worth no more than that one agent."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aio_pika
import httpx2
import pytest
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractQueue
from aiormq.exceptions import AMQPError
from yarl import URL

from chiffon.errors import ApiError
from chiffon.rabbitmq import plan
from chiffon.rabbitmq.credentials import new_password
from common.broker import topology
from common.broker.base import Address, Outgoing
from common.messages import AgentStatus
from common.orders import Control
from common.protocol import (
    ORCHESTRATOR,
    Envelope,
    RenewEnvelope,
    StatusUpdateEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    WorkResults,
    WorkResultsEnvelope,
    WorkStatusEnvelope,
    decode,
    encode,
    join_results,
)
from tests.eventually import eventually
from tests.factories import (
    make_chunk,
    make_credit,
    make_heartbeat,
    make_renewal,
    make_result,
    make_results,
    make_status,
)
from tests.integration.system.rights import Account, Guarded, closing_of, refusal, thief

pytestmark = pytest.mark.xdist_group("system/rights")

REFUSED = "ACCESS_REFUSED"

Attempt = Callable[[AbstractChannel], Awaitable[object]]


@pytest.fixture
async def stolen(guarded: Guarded) -> Account:
    """The credential of an agent that does not run."""
    return await guarded.add_agent("infra")


@pytest.fixture
async def victim(guarded: Guarded) -> Account:
    """An agent of another pool, which runs."""
    account = await guarded.add_agent("desktop")
    await guarded.start_agent(account, slots=1)
    await eventually(lambda: is_online(guarded, account), timeout=30)
    return account


async def is_online(guarded: Guarded, account: Account) -> bool:
    return account.agent_id in {agent.agent_id for agent in await guarded.system.agents_online()}


async def say(connection: aio_pika.abc.AbstractConnection, envelope: Envelope, *, key: str, user: str | None) -> None:
    """Publish a reply as a thief would: with any user, under any routing key."""
    channel = await connection.channel(on_return_raises=True)
    exchange = await channel.get_exchange(topology.REPLIES.name, ensure=False)
    await exchange.publish(Message(encode(envelope), user_id=user), key)
    await channel.close()


async def test_agents_with_users_of_their_own_work_from_end_to_end(guarded: Guarded, victim: Account) -> None:
    other = await guarded.add_agent("infra")
    await guarded.start_agent(other, slots=2)
    echo, shell, aimed = uuid4(), uuid4(), uuid4()

    await guarded.system.client.dispatch("echo", {"message": "hello"}, task_id=echo)
    await guarded.system.client.dispatch("shell_script", {"script": "echo out; sleep 1; echo more"}, task_id=shell)
    await guarded.system.client.dispatch("echo", {"message": "you"}, task_id=aimed, agent_id=other.agent_id)
    tasks = await guarded.system.finished(echo, shell, aimed)

    assert [task.status for task in tasks] == ["completed"] * 3
    assert [task.agent_id for task in tasks] == [other.agent_id, victim.agent_id, other.agent_id]
    assert tasks[1].output == "out\nmore\n"
    assert await guarded.system.dead_letters(0) == []


async def test_an_agent_whose_queues_have_gone_gets_them_again_and_works(guarded: Guarded) -> None:
    account = await guarded.add_agent("infra")
    for name in (account.control, account.work):
        await guarded.system.broker.delete(name)

    await guarded.start_agent(account)
    task_id = uuid4()
    await guarded.system.client.dispatch("echo", {"message": "x"}, task_id=task_id, agent_id=account.agent_id)

    assert [task.status for task in await guarded.system.finished(task_id)] == ["completed"]


async def test_what_an_agent_without_rights_cannot_read_is_a_dead_letter(guarded: Guarded, victim: Account) -> None:
    control, work = topology.control_address(victim.agent_id), topology.work_address("desktop", victim.agent_id)
    for address in (control, work):
        await guarded.system.broker.publish(raw(address, b"\xffno JSON"))

    letters = await eventually(lambda: guarded.system.dead_letters(2))

    assert {letter.queue for letter in letters} == {victim.work, victim.control}
    assert all(f"agent {victim.agent_id} cannot read it" in letter.reason for letter in letters)
    task_id = uuid4()
    await guarded.system.client.dispatch("shell_script", {"script": "true"}, task_id=task_id)
    assert [task.status for task in await guarded.system.finished(task_id)] == ["completed"]


def raw(address: Address, body: bytes) -> Outgoing:
    return Outgoing(address, body, "unknown")


async def test_a_stolen_credential_reads_no_queue_of_others(guarded: Guarded, victim: Account, stolen: Account) -> None:
    others = [
        victim.work,
        victim.control,
        *(queue.name for queue in topology.REPLY_QUEUES),
        topology.DEAD_LETTERS,
    ]
    async with thief(stolen) as connection:
        for name in others:
            assert REFUSED in await refusal(connection, on(name, lambda queue: queue.consume(ignore)))
            assert REFUSED in await refusal(connection, on(name, lambda queue: queue.get(fail=False)))


def on(name: str, meddle: Callable[[AbstractQueue], Awaitable[object]]) -> Attempt:
    """Return an attempt to do something to a queue."""

    async def attempt(channel: AbstractChannel) -> None:
        await meddle(await channel.get_queue(name, ensure=False))

    return attempt


async def ignore(_: object) -> None:
    pass


def publishing(exchange_name: str, key: str, *, user: str | None = None, body: bytes = b"{}") -> Attempt:
    async def attempt(channel: AbstractChannel) -> None:
        exchange = (
            await channel.get_exchange(exchange_name, ensure=False) if exchange_name else channel.default_exchange
        )
        await exchange.publish(Message(body, user_id=user), key)

    return attempt


async def test_a_stolen_credential_publishes_to_no_queue_by_name(
    guarded: Guarded, victim: Account, stolen: Account
) -> None:
    names = [stolen.work, victim.work, victim.control, topology.RESULTS, "dead"]
    async with thief(stolen) as connection:
        for name in names:
            assert REFUSED in await refusal(connection, publishing("", name))
            for exchange in (topology.WORK, topology.CONTROL, topology.DEAD):
                assert REFUSED in await refusal(connection, publishing(exchange.name, name))


async def test_a_stolen_credential_declares_binds_deletes_and_purges_nothing_of_others(
    guarded: Guarded, victim: Account, stolen: Account
) -> None:
    control, own = victim.control, stolen.control
    attempts: list[Attempt] = [
        lambda channel: channel.declare_queue("mine"),
        lambda channel: channel.declare_queue(),
        lambda channel: channel.declare_exchange("mine"),
        lambda channel: channel.queue_delete(control),
        lambda channel: channel.queue_delete(victim.work),
        lambda channel: channel.queue_delete(stolen.work),
        lambda channel: channel.exchange_delete(topology.REPLIES.name),
        on(stolen.work, lambda queue: queue.bind(topology.WORK.name, victim.work)),
        on(own, lambda queue: queue.bind(topology.CONTROL.name, "#")),
        on(own, lambda queue: queue.bind(topology.REPLIES.name, "#")),
        on(control, lambda queue: queue.unbind(topology.CONTROL.name, control)),
        on(control, lambda queue: queue.purge()),
        on(victim.work, lambda queue: queue.purge()),
    ]
    async with thief(stolen) as connection:
        for attempt in attempts:
            assert REFUSED in await refusal(connection, attempt)


async def test_work_that_a_thief_asks_for_and_purges_is_run_by_another_agent(guarded: Guarded, stolen: Account) -> None:
    task_id, beat, key = uuid4(), asking(stolen, limit=1), f"{stolen.agent_id}.heartbeats"
    async with thief(stolen) as connection:
        await say(connection, beat, key=key, user=stolen.user)
        await eventually(lambda: is_online(guarded, stolen), timeout=30)
        await guarded.system.client.dispatch("echo", {"message": "x"}, task_id=task_id, idempotent=True)
        await eventually(lambda: guarded.system.broker.depth(stolen.work))

        await (await (await connection.channel()).get_queue(stolen.work, ensure=False)).purge()
        await say(connection, goodbye(beat), key=key, user=stolen.user)
    assert await guarded.system.broker.depth(stolen.work) == 0

    other = await guarded.add_agent("infra")
    await guarded.start_agent(other)
    [task] = await guarded.system.finished(task_id)
    assert (task.status, task.attempt, task.agent_id) == ("completed", 2, other.agent_id)


def asking(account: Account, *, limit: int, agent_type: str | None = None) -> StatusUpdateEnvelope:
    """Return a heartbeat of an agent that asks for work."""
    beat = make_heartbeat(
        account.agent_id,
        agent_type=agent_type or account.agent_type,
        work_types=[],
        hostname="thief",
        boot_id=(session := uuid4()),
        credit=make_credit(session=session, limit=limit),
    )
    return StatusUpdateEnvelope(from_agent=str(account.agent_id), to_agent=ORCHESTRATOR, payload=beat)


def goodbye(beat: StatusUpdateEnvelope) -> StatusUpdateEnvelope:
    """Return the last heartbeat of the agent that said the other: the next test need not wait until it is silent."""
    return beat.model_copy(update={"payload": beat.payload.model_copy(update={"status": AgentStatus.OFFLINE})})


async def test_a_thief_cannot_say_anything_under_the_name_or_the_key_of_another(
    guarded: Guarded, victim: Account, stolen: Account
) -> None:
    replies = topology.REPLIES.name
    async with thief(stolen) as connection:
        for kind in ("results", "progress", "heartbeats"):
            other, own = f"{victim.agent_id}.{kind}", f"{stolen.agent_id}.{kind}"
            assert REFUSED in await refusal(connection, publishing(replies, other, user=stolen.user))
            assert "user_id" in await refusal(connection, publishing(replies, own, user=victim.user))
        for key in (f"replayed.{topology.RESULTS}", f"{stolen.agent_id}.unknown", f"{stolen.agent_id}.results.x", ""):
            assert REFUSED in await refusal(connection, publishing(replies, key, user=stolen.user))


async def test_what_a_thief_says_for_another_agent_changes_nothing(
    guarded: Guarded, victim: Account, stolen: Account, tmp_path: Path
) -> None:
    system, gate, running, waiting = guarded.system, tmp_path / "gate", uuid4(), uuid4()
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; echo genuine"
    await system.client.dispatch("shell_script", {"script": script}, task_id=running)
    await eventually(lambda: status_is(guarded, running, "running"), timeout=30)
    await system.client.dispatch("shell_script", {"script": "true"}, task_id=waiting)
    said: dict[str, str] = {"from_agent": str(victim.agent_id), "to_agent": ORCHESTRATOR}
    forged: list[tuple[str, Envelope]] = [
        ("results", WorkResultEnvelope(payload=make_result(running, victim.agent_id), **said)),
        ("results", among_own(stolen, WorkResultEnvelope(payload=make_result(running, victim.agent_id), **said))),
        (
            "progress",
            WorkStatusEnvelope(payload=make_status(running, victim.agent_id, make_chunk(0, "lie", offset=0)), **said),
        ),
        ("results", WorkResultsEnvelope(payload=asking_with_a_result(victim), **said)),
        ("heartbeats", RenewEnvelope(payload=make_renewal(running, victim.agent_id), **said)),
        (
            "heartbeats",
            asking(victim, limit=100),
        ),
    ]
    before = len((await system.client.events(running)).items)

    async with thief(stolen) as connection:
        for kind, envelope in forged:
            await say(connection, envelope, key=f"{stolen.agent_id}.{kind}", user=stolen.user)
            await say(connection, envelope, key=f"{stolen.agent_id}.{kind}", user=None)
    letters = await eventually(lambda: system.dead_letters(2 * len(forged)), timeout=30)

    assert all(letter.reason.startswith("forged: ") for letter in letters)
    assert len((await system.client.events(running)).items) == before
    assert await status_is(guarded, running, "running")
    assert await status_is(guarded, waiting, "pending")
    [shown] = [agent for agent in await system.client.agents() if agent.agent_id == victim.agent_id]
    assert shown.hostname != "thief"
    with pytest.raises(ApiError, match="not sent by whom"):
        await system.client.replay_dead_letter(letters[0].id)
    gate.touch()
    [task, _] = await system.finished(running, waiting)
    assert (task.status, task.output) == ("completed", "genuine\n")


def asking_with_a_result(account: Account) -> WorkResults:
    """Return a result of an agent, with which it asks for work."""
    return make_results(account.agent_id, 1).model_copy(update={"credit": make_credit(limit=100)})


def among_own(account: Account, other: WorkResultEnvelope) -> Envelope:
    """Return results of an agent, with that of another among them."""
    [own, *_] = make_results(account.agent_id).results
    results = WorkResults(agent_id=account.agent_id, results=[own, other])
    return WorkResultsEnvelope(from_agent=str(account.agent_id), to_agent=ORCHESTRATOR, payload=results)


async def test_of_results_that_an_agent_sends_together_a_spoilt_one_is_a_dead_letter_and_the_others_count(
    guarded: Guarded, victim: Account, tmp_path: Path
) -> None:
    system, gate, running = guarded.system, tmp_path / "gate", uuid4()
    await system.client.dispatch(
        "shell_script", {"script": f"while [ ! -e {gate} ]; do sleep 0.05; done"}, task_id=running
    )
    await eventually(lambda: status_is(guarded, running, "running"), timeout=30)
    [good, spoilt] = make_results(victim.agent_id, output="together").results
    good = good.model_copy(update={"payload": make_result(running, victim.agent_id, output="together")})
    bodies = [encode(good), encode(spoilt).replace(b'"attempt":1', b'"attempt":-1')]

    async with thief(victim) as connection:
        together = join_results(victim.agent_id, bodies)
        own = publishing(topology.REPLIES.name, f"{victim.agent_id}.results", user=victim.user, body=together)
        await own(await connection.channel(on_return_raises=True))
    [task] = await system.finished(running)
    [letter] = await eventually(lambda: system.dead_letters(1), timeout=30)

    assert (task.status, task.output) == ("completed", "together")
    assert "attempt" in letter.reason
    assert (letter.queue, letter.type) == (topology.RESULTS, "work_result")
    gate.touch()


async def status_is(guarded: Guarded, task_id: UUID, status: str) -> bool:
    return (await guarded.system.client.status(task_id)).status == status


async def test_a_stolen_credential_sees_nothing_of_the_administration(guarded: Guarded, stolen: Account) -> None:
    parts = urlsplit(stolen.url)
    assert parts.username is not None
    assert parts.password is not None
    auth = (parts.username, parts.password)
    async with httpx2.AsyncClient(
        base_url=guarded.rabbit.settings.management_url, auth=auth, trust_env=False
    ) as client:
        for path in ("users", "queues", "connections", "definitions", "whoami"):
            assert (await client.get(f"/api/{path}")).status_code == 401


async def test_a_stolen_credential_opens_only_so_many_connections(guarded: Guarded, stolen: Account) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(plan.AGENT_CONNECTIONS):
            await stack.enter_async_context(thief(stolen))
        with pytest.raises(AMQPError):
            await stack.enter_async_context(thief(stolen))


async def test_an_agent_that_is_removed_is_cut_off_at_once_and_stays_out(guarded: Guarded, stolen: Account) -> None:
    async with thief(stolen) as connection:
        closed = closing_of(connection)
        await guarded.rabbit.remove_agent(stolen)
        await asyncio.wait_for(closed.wait(), 10)

    await assert_no_way_in(stolen)
    assert await guarded.rabbit.remove_agent(stolen) == []


async def test_a_password_that_is_replaced_opens_nothing_any_more(guarded: Guarded, stolen: Account) -> None:
    fresh = new_password()
    async with thief(stolen) as connection:
        closed = closing_of(connection)
        await guarded.rabbit.apply(plan.rotate_agent(stolen.agent_id, password=fresh))
        await asyncio.wait_for(closed.wait(), 10)

    await assert_no_way_in(stolen)
    async with thief(replace(stolen, url=guarded.rabbit.url_of(stolen.user, fresh))) as connection:
        assert not connection.is_closed


async def assert_no_way_in(account: Account) -> None:
    connection = aio_pika.Connection(URL(account.url))
    with pytest.raises(AMQPError):
        await connection.connect()
    # One that never came about is open for the library.
    await connection.close()


async def listening(connection: aio_pika.abc.AbstractConnection, name: str) -> "asyncio.Queue[Envelope]":
    """Return what arrives in a queue from now on."""
    heard: asyncio.Queue[Envelope] = asyncio.Queue()

    async def hear(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        await heard.put(decode(message.body))

    channel = await connection.channel()
    queue = await channel.get_queue(name, ensure=False)
    await queue.consume(hear, no_ack=True)
    return heard


async def test_a_stolen_credential_gets_no_work_of_another_pool_whatever_it_says(
    guarded: Guarded, stolen: Account
) -> None:
    """No agent of the other pool runs, so that its work waits."""
    system, waiting, own = guarded.system, uuid4(), uuid4()
    before = len(await system.dead_letters(0))
    async with thief(stolen) as connection:
        work = await listening(connection, stolen.work)
        key = f"{stolen.agent_id}.heartbeats"
        await say(connection, asking(stolen, limit=2, agent_type="desktop"), key=key, user=stolen.user)
        [letter, *_] = await eventually(lambda: system.dead_letters(before + 1), timeout=30)
        beat = asking(stolen, limit=2)
        await say(connection, beat, key=key, user=stolen.user)
        await eventually(lambda: is_online(guarded, stolen), timeout=30)
        await system.client.dispatch("shell_script", {"script": "echo secret"}, task_id=waiting)
        await system.client.dispatch("echo", {"message": "x"}, task_id=own)
        async with asyncio.timeout(30):
            got = await work.get()
        await say(connection, goodbye(beat), key=key, user=stolen.user)

    assert letter.reason.startswith("forged: ")
    assert isinstance(got, WorkRequestEnvelope)
    assert [task.work.task_id for task in got.payload.tasks] == [own]
    assert work.empty()
    assert await status_is(guarded, waiting, "pending")
    [agent] = [one for one in await system.client.agents() if one.agent_id == stolen.agent_id]
    assert agent.agent_type == "infra"


async def test_a_user_whose_agent_never_enrolled_is_believed_nothing(guarded: Guarded) -> None:
    account = await guarded.rabbit.add_agent("infra", uuid4())
    before = len(await guarded.system.dead_letters(0))

    async with thief(account) as connection:
        await say(connection, asking(account, limit=1), key=f"{account.agent_id}.heartbeats", user=account.user)
        [letter, *_] = await eventually(lambda: guarded.system.dead_letters(before + 1), timeout=30)

    assert "has not enrolled" in letter.reason
    assert not await is_online(guarded, account)


async def test_a_heartbeat_over_rabbitmq_widens_no_label_that_permits_or_was_pinned(guarded: Guarded) -> None:
    account = await guarded.add_agent("infra", zone="eu", enforces=["network_off"])
    said = {"from_agent": str(account.agent_id), "to_agent": ORCHESTRATOR}
    before = len(await guarded.system.dead_letters(0))
    more = {"enforces": ["network_off", "sandbox"], "secrets": ["db"]}

    async with thief(account) as connection:
        for labels in ({"zone": "us"}, more):
            beat = StatusUpdateEnvelope(payload=make_heartbeat(account.agent_id, labels=labels), **said)
            await say(connection, beat, key=f"{account.agent_id}.heartbeats", user=account.user)
        await eventually(lambda: is_online(guarded, account), timeout=30)
        await say(connection, goodbye(beat), key=f"{account.agent_id}.heartbeats", user=account.user)
    [letter, *_] = await eventually(lambda: guarded.system.dead_letters(before + 1), timeout=30)

    [agent] = [one for one in await guarded.system.client.agents() if one.agent_id == account.agent_id]
    assert agent.labels == {"zone": "eu", "enforces": ["network_off"]}
    assert letter.reason.startswith("forged: the label zone")


async def test_what_an_agent_says_in_its_own_name_of_the_task_of_another_changes_nothing(
    guarded: Guarded, victim: Account, stolen: Account, tmp_path: Path
) -> None:
    system, gate, running = guarded.system, tmp_path / "gate", uuid4()
    script = f"echo genuine; while [ ! -e {gate} ]; do sleep 0.05; done"
    await system.client.dispatch("shell_script", {"script": script}, task_id=running)
    await eventually(lambda: status_is(guarded, running, "running"), timeout=30)
    said = {"from_agent": str(stolen.agent_id), "to_agent": ORCHESTRATOR}
    forged = make_status(running, stolen.agent_id, make_chunk(9, "forged", offset=90), progress="forged")
    result = make_result(running, stolen.agent_id, output="forged")

    async with thief(stolen) as connection:
        heard = await listening(connection, stolen.control)
        for kind, envelope in (
            ("progress", WorkStatusEnvelope(payload=forged, **said)),
            ("results", WorkResultEnvelope(payload=result, **said)),
            ("heartbeats", RenewEnvelope(payload=make_renewal(running, stolen.agent_id), **said)),
            ("progress", WorkResultEnvelope(payload=result, **said)),
        ):
            await say(connection, envelope, key=f"{stolen.agent_id}.{kind}", user=stolen.user)
        # The last of each queue was dealt with when its answer is here.
        async with asyncio.timeout(30):
            answers = [(await heard.get()).payload for _ in range(3)]
    told = [event for event in (await system.client.events(running)).items if event.agent_id == stolen.agent_id]
    gate.touch()
    [task] = await system.finished(running)

    assert [answer.order.action for answer in answers if isinstance(answer, Control)].count("stored") == 2
    assert {event.kind for event in told} == {"task.result_refused"}
    assert (task.status, task.output, task.progress) == ("completed", "genuine\n", "")
