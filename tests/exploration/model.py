"""The model around the rules: agents, orchestrators, a network, and time.

**Network.** It is the set of everything that was ever sent. Any of it may arrive at any time, in any order, again and
again, or never: so loss, duplication and reordering have no bound. What a sender repeats adds nothing to it.

**Heartbeats.** An agent sends them all the time, so what it says now may be heard at any time. One that is heard late
is as one that was heard earlier, with nobody acting on it. One that is heard after a younger one changes nothing,
unless it says that a grant is missed: that may be settled late, or again, so such heartbeats stay in the network. Of
messages that differ only in their age the youngest is kept: an older one shortens a lease, as delay does. Results come
with the same credit.

**Time** passes in ticks, for everybody at once. An agent counts its lease from when it sent the message that asked for
it, as production does; the ledger from when it gave. A tick cannot pass over the moment at which an agent must stop its
work: its timer is on time.

**Crashes** come between any two actions, and between the two halves of a report. An agent keeps its spool and its
journal and begins a new session, an orchestrator keeps nothing but the ledger; one that crashes after its commit has
told nobody. An action on the ledger is one step, because rows are locked from the reading to the commit; without the
lock, judging and writing are two.

**Twins.** Of two tasks that nothing has happened to only the first is leased or cancelled: with the second all would
be the same under another number.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from common.lifecycle import Status
from tests.exploration import agents, ledger
from tests.exploration.agents import Did
from tests.exploration.ledger import Ledger, Write
from tests.exploration.relevance import relevant
from tests.exploration.scope import Safeguard, Scope
from tests.exploration.state import (
    LEASE,
    SLOTS,
    Agent,
    Ask,
    Cancel,
    Grant,
    Hand,
    Heard,
    Kept,
    Lost,
    Message,
    Renew,
    Result,
    Row,
    State,
    Stored,
    Task,
)

IDLE = Hand()
NEW = Task()
TO_AGENTS = (Heard, Grant, Kept, Lost, Stored, Cancel)


class Action(NamedTuple):
    """What happened: to which task or by which agent, and with which message."""

    name: str
    task: int | None = None
    agent: int | None = None
    message: Message | None = None


Step = tuple[Action, State]
Judged = tuple[Action, Write]


class Model:
    """Yields every step that can follow a state."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._rules = scope.rules
        self._locks = scope.has(Safeguard.ROW_LOCK)

    def initial(self) -> State:
        """All tasks have been dispatched, and nothing else has happened."""
        scope = self._scope
        return State(
            tasks=tuple(Task() for _ in scope.most),
            rows=(Row(),) * scope.agents,
            agents=(Agent(),) * scope.agents,
            hands=(Hand(),) * scope.orchestrators,
        )

    def steps(self, state: State) -> Iterator[Step]:
        """Yield everything that can happen next."""
        if not self._scope.forgets:
            yield from self._steps(state)
            return
        for action, following in self._steps(state):
            network = relevant(following)
            yield action, following if network is following.network else following._replace(network=network)

    def _steps(self, state: State) -> Iterator[Step]:
        yield from self._agents(state)
        yield from self._orchestrators(state)
        yield from self._tick(state)

    def converged(self, state: State) -> bool:
        """Every task is final or can be leased, and agents have nothing to run or to report, and room for new work."""
        return (
            all(agent.slot is None and not agent.spool for agent in state.agents)
            and all(hand == IDLE for hand in state.hands)
            and all(task.status.is_final or task.status is Status.PENDING for task in state.tasks)
            and all(
                row.newest is not None and row.newest.session == agent.session and row.room == SLOTS
                for agent, row in zip(state.agents, state.rows, strict=True)
            )
        )

    # Agents

    def _agents(self, state: State) -> Iterator[Step]:
        for number, agent in enumerate(state.agents):
            for name, did in agents.on_its_own(number, agent, self._scope):
                yield Action(name, agent=number), self._did(state, number, did)
            if state.crashes < self._scope.crashes:
                for name, crash in (("crash", agents.crash), ("crash at the end", agents.crash_at_the_end)):
                    if name == "crash" or agent.slot is not None:
                        crashed = self._did(state, number, crash(number, agent, self._scope))
                        yield Action(name, agent=number), crashed._replace(crashes=state.crashes + 1)
        for message in state.network:
            if isinstance(message, TO_AGENTS):
                agent = state.agents[message.agent]
                did = agents.arrive(message.agent, agent, message, self._scope)
                if did.agent != agent or did.sent:
                    yield Action("arrive", agent=message.agent, message=message), self._did(state, message.agent, did)

    def _did(self, state: State, number: int, did: Did) -> State:
        tasks = state.tasks
        if did.began is not None:
            task = tasks[did.began]
            tasks = _put(tasks, did.began, task._replace(begun=task.begun + 1))
        written = state.written
        if did.written is not None:
            written |= {did.written}
        return State(
            tasks=tasks,
            rows=state.rows,
            agents=_put(state.agents, number, did.agent),
            hands=state.hands,
            network=state.network.union(did.sent),
            crashes=state.crashes,
            written=_undecided(written, tasks),
        )

    # Orchestrators

    def _orchestrators(self, state: State) -> Iterator[Step]:
        free: int | None = None
        for number, hand in enumerate(state.hands):
            if hand == IDLE:
                free = number
                continue
            if number and hand == state.hands[number - 1]:
                continue  # the same as the one before
            emptied = _hands(state.hands, number, IDLE)
            if hand.judged is not None:
                action, write = cast("Judged", hand.judged)
                yield self._commit(state._replace(hands=emptied), action, write)
            else:
                yield Action("tell"), state._replace(hands=emptied, network=state.network | hand.answers)
            if state.crashes < self._scope.crashes:
                yield Action("orchestrator crashes"), state._replace(hands=emptied, crashes=state.crashes + 1)
        if free is None:
            return
        for action, write in self._judge(state):
            if self._locks:
                yield self._commit(state, action, write)
            else:
                judged = Hand(judged=(action, write))
                yield (
                    action._replace(name=f"judge {action.name}"),
                    state._replace(hands=_hands(state.hands, free, judged)),
                )

    def _judge(self, state: State) -> Iterator[Judged]:
        most = self._scope.most
        yield from self._heartbeats(state)
        for message in state.network:
            match message:
                case Renew(task=number):
                    write = ledger.renew(number, state.tasks[number], message)
                    yield Action("renew", number, message.agent, message), write
                case Result(task=number):
                    credit = agents.asks(message.agent, state.agents[message.agent])
                    write = ledger.accept(self._scope, state.tasks[number], most[number], message, credit)
                    yield Action("result", number, message.agent, message), write
        for number, task in enumerate(state.tasks):
            if self._is_twin(state, number):
                continue
            for agent, row in enumerate(state.rows):
                if (give := ledger.give(self._scope, number, task, agent, row)) is not None:
                    yield Action("give", number, agent), give
            if task.status is Status.RUNNING and task.lease == 0:
                yield Action("reap", number), ledger.reap(self._rules, number, task, most[number])
            stop = ledger.cancel(self._rules, number, task) if self._scope.cancels else None
            if stop is not None:
                yield Action("cancel", number), stop

    def _is_twin(self, state: State, number: int) -> bool:
        """Say whether nothing has happened to a task nor to the one before it, which may start as often."""
        if number == 0 or not self._locks:  # without the lock one of them may be judged and not yet written
            return False
        most = self._scope.most
        return state.tasks[number] == state.tasks[number - 1] == NEW and most[number] == most[number - 1]

    def _heartbeats(self, state: State) -> Iterator[Judged]:
        for number, (agent, row) in enumerate(zip(state.agents, state.rows, strict=True)):
            asked = agents.asks(number, agent)
            if row.newest is None or ledger.is_newer(asked, row.newest):
                yield Action("hear", None, number, asked), ledger.hear(self._scope, asked)
        asks = [one for one in state.network if isinstance(one, Ask)]
        for asked in (*asks, *(row.newest for row in state.rows if row.newest is not None)):
            if (settle := ledger.settle(self._scope, asked)) is not None:
                yield Action("settle", None, asked.agent, asked), settle

    def _commit(self, state: State, action: Action, write: Write) -> Step:
        (tasks, rows), answers = write(Ledger.of(state))
        network, hands = state.network.union(_not_settled(state.rows, rows)), state.hands
        if action.name == "cancel" or not self._scope.hands:
            network |= answers  # an order to stop waits in the outbox, which is part of the ledger
        elif answers - network:
            free = next(number for number, hand in enumerate(hands) if hand == IDLE)
            hands = _hands(hands, free, Hand(answers=answers - network))
        return action, State(tasks, rows, state.agents, hands, network, state.crashes, _undecided(state.written, tasks))

    # The rest of the world

    def _tick(self, state: State) -> Iterator[Step]:
        if self._scope.has(Safeguard.SELF_FENCING) and any(
            agent.slot is not None and agent.slot.left <= 1 for agent in state.agents
        ):
            return
        hands = (hand._replace(answers=_all_older(hand.answers)) for hand in state.hands)
        older = State(
            tasks=tuple(task._replace(lease=task.lease - 1) if task.lease else task for task in state.tasks),
            rows=tuple(
                row if row.newest is None else row._replace(newest=_message_older(row.newest)) for row in state.rows
            ),
            agents=tuple(_older(agent) for agent in state.agents),
            hands=tuple(sorted(hands, key=hash)),
            network=_all_older(state.network),
            crashes=state.crashes,
            written=state.written,
        )
        if older != state:
            yield Action("tick"), older


def _older(agent: Agent) -> Agent:
    slot = agent.slot
    if slot is None:
        return agent
    sent = None if slot.renewed_ago is None else min(slot.renewed_ago + 1, LEASE)
    return agent._replace(slot=slot._replace(left=max(slot.left - 1, 0), renewed_ago=sent))


def _message_older(message: Any) -> Any:
    return message._replace(age=message.age + 1) if message.age < LEASE else message


def _all_older(messages: frozenset[Message]) -> frozenset[Message]:
    return frozenset(_message_older(one) if isinstance(one, Ask | Grant) else one for one in messages)


def _not_settled(before: tuple[Row, ...], after: tuple[Row, ...]) -> Iterator[Ask]:
    """Yield the heartbeats that were the newest, and say that something is missed: it may be settled later."""
    for old, new in zip(before, after, strict=True):
        if old.newest is not None and old.newest != new.newest and old.newest.heard > old.newest.received:
            yield old.newest


def _undecided(written: frozenset[Result], tasks: tuple[Task, ...]) -> frozenset[Result]:
    """What the ledger has not dealt with yet."""
    return frozenset(result for result in written if not is_decided(result, tasks[result.task])) if written else written


def is_decided(result: Result, task: Task) -> bool:
    """Say whether the attempt that a result is of has ended in the ledger."""
    ended = task.tries[result.attempt - 1]
    if result.status.value == "cancelled" and ended.outcome == "cancelled":
        return ended.reported
    return ended.outcome is not None


def _put(items: tuple[Any, ...], number: int, item: Any) -> tuple[Any, ...]:
    return (*items[:number], item, *items[number + 1 :])


def _hands(hands: tuple[Hand, ...], number: int, hand: Hand) -> tuple[Hand, ...]:
    """Orchestrators are alike, so it does not matter which of them has what in hand."""
    return tuple(sorted(_put(hands, number, hand), key=hash))
