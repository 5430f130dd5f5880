"""The model around the rules: agents, orchestrators, a network, and time.

**Network.** It is the set of everything that was ever sent. Any of it may arrive at any time, in any order, again and
again, or never: so loss, duplication and reordering have no bound. What a sender repeats adds nothing to it.

**Time** passes in ticks, for everybody at once. An agent counts its lease from when it asked, as production does; the
ledger from when it gave. A tick cannot pass over the moment at which an agent must stop its work: its timer is on time.

**Crashes** come between any two actions, and between the two halves of a report. An agent keeps its spool and its
journal, an orchestrator nothing but the ledger; one that crashes after its commit has told nobody. An action on the
ledger is one step, because the row is locked from the reading to the commit; without the lock, judging and writing are
two.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

from common.lifecycle import Status
from tests.exploration import agents, ledger
from tests.exploration.agents import Did
from tests.exploration.ledger import Written
from tests.exploration.relevance import relevant
from tests.exploration.scope import Safeguard, Scope
from tests.exploration.state import (
    LEASE,
    Agent,
    Asking,
    Cancel,
    Claim,
    Grant,
    Hand,
    Kept,
    Lost,
    Message,
    Refusal,
    Renew,
    Result,
    Running,
    State,
    Stored,
    Task,
    Ticket,
)

TO_AGENTS = (Grant, Refusal, Kept, Lost, Stored, Cancel)
TO_ORCHESTRATORS = (Claim, Renew, Result)


class Action(NamedTuple):
    """What happened: to which task or by which agent, and with which message."""

    name: str
    task: int | None = None
    agent: int | None = None
    message: Message | None = None


Step = tuple[Action, State]
Judged = tuple[Action, Callable[[Task], Written]]


class Model:
    """Yields every step that can follow a state."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._rules = scope.rules
        self._outbox = scope.has(Safeguard.OUTBOX)
        self._locks = scope.has(Safeguard.ROW_LOCK)

    def initial(self) -> State:
        """All tasks have been dispatched, and nothing else has happened."""
        scope = self._scope
        tickets = () if self._outbox else tuple(Ticket(number, 0) for number in range(len(scope.most)))
        return State(
            tasks=tuple(Task() for _ in scope.most),
            agents=tuple(Agent() for _ in range(scope.agents)),
            hands=(Hand(),) * scope.orchestrators,
            network=frozenset(tickets),
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
        if self._outbox:
            yield from self._relay(state)
        yield from self._tick(state)

    def converged(self, state: State) -> bool:
        """Every task is final or can be claimed, and no agent has anything left to run or to report."""
        return (
            all(agent.slot is None and not agent.spool for agent in state.agents)
            and all(hand == Hand() for hand in state.hands)
            and all(
                task.status.is_final or (task.status is Status.PENDING and self._can_be_claimed(state, number, task))
                for number, task in enumerate(state.tasks)
            )
        )

    def _can_be_claimed(self, state: State, number: int, task: Task) -> bool:
        return self._outbox or Ticket(number, task.fence) in state.network

    # Agents

    def _agents(self, state: State) -> Iterator[Step]:
        for number, agent in enumerate(state.agents):
            for name, did in agents.on_its_own(number, agent, self._scope):
                yield Action(name, agent=number), self._did(state, number, did)
            if state.crashes < self._scope.crashes:
                for name, crash in (("crash", agents.crash), ("crash at the end", agents.crash_at_the_end)):
                    did = crash(number, agent, self._scope)
                    if did.agent != agent:
                        crashed = self._did(state, number, did)
                        yield Action(name, agent=number), crashed._replace(crashes=state.crashes + 1)
        for message in state.network:
            if isinstance(message, Ticket):
                yield from self._take(state, message)
            elif isinstance(message, TO_AGENTS):
                agent = state.agents[message.agent]
                did = agents.arrive(message.agent, agent, message, self._scope)
                if did.agent != agent or did.sent:
                    yield Action("arrive", agent=message.agent, message=message), self._did(state, message.agent, did)

    def _take(self, state: State, ticket: Ticket) -> Iterator[Step]:
        for number, agent in enumerate(state.agents):
            if agent.slot is None and agent.asked < self._scope.asks:
                did = agents.take(number, agent, ticket)
                yield Action("take", agent=number, message=ticket), self._did(state, number, did)

    def _did(self, state: State, number: int, did: Did) -> State:
        tasks = state.tasks
        if did.began is not None:
            task = tasks[did.began]
            tasks = _put(tasks, did.began, task._replace(begun=task.begun + 1))
        written = state.written
        if did.written is not None:
            written |= {did.written}
        return state._replace(
            tasks=tasks,
            agents=_put(state.agents, number, did.agent),
            network=state.network.union(did.sent),
            written=_undecided(written, tasks),
        )

    # Orchestrators

    def _orchestrators(self, state: State) -> Iterator[Step]:
        free: int | None = None
        for number, hand in enumerate(state.hands):
            if hand == Hand():
                free = number
                continue
            if number and hand == state.hands[number - 1]:
                continue  # the same as the one before
            emptied = _hands(state.hands, number, Hand())
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
            assert action.task is not None
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
        for message in state.network:
            match message:
                case Claim(task=number):
                    write = ledger.claim(self._rules, state.tasks[number], most[number], message)
                    yield Action("claim", number, message.agent, message), write
                case Renew(task=number):
                    yield Action("renew", number, message.agent, message), ledger.renew(state.tasks[number], message)
                case Result(task=number):
                    write = ledger.accept(self._rules, state.tasks[number], most[number], message)
                    yield Action("result", number, message.agent, message), write
        for number, task in enumerate(state.tasks):
            if task.status is Status.RUNNING and task.lease == 0:
                yield Action("reap", number), ledger.reap(self._rules, number, task, most[number])
            stop = ledger.cancel(self._rules, number, task) if self._scope.cancels else None
            if stop is not None:
                yield Action("cancel", number), stop

    def _commit(self, state: State, action: Action, write: Callable[[Task], Written]) -> Step:
        assert action.task is not None
        task, answers = write(state.tasks[action.task])
        if not self._outbox and task.status is Status.PENDING and state.tasks[action.task].status is not Status.PENDING:
            answers |= {Ticket(action.task, task.fence)}
        tasks = _put(state.tasks, action.task, task)
        network, hands = state.network, state.hands
        if action.name == "cancel" or not self._scope.hands:
            network |= answers  # an order to stop waits in the outbox, which is part of the ledger
        elif answers - network:
            free = next(number for number, hand in enumerate(hands) if hand == Hand())
            hands = _hands(hands, free, Hand(answers=answers - network))
        return action, state._replace(
            tasks=tasks, hands=hands, network=network, written=_undecided(state.written, tasks)
        )

    # The rest of the world

    def _relay(self, state: State) -> Iterator[Step]:
        for number, task in enumerate(state.tasks):
            ticket = Ticket(number, task.fence)
            if task.status is Status.PENDING and ticket not in state.network:
                yield Action("relay", number, message=ticket), state._replace(network=state.network | {ticket})

    def _tick(self, state: State) -> Iterator[Step]:
        if self._scope.has(Safeguard.SELF_FENCING) and any(
            isinstance(agent.slot, Running) and agent.slot.left <= 1 for agent in state.agents
        ):
            return
        older = state._replace(
            tasks=tuple(task._replace(lease=task.lease - 1) if task.lease else task for task in state.tasks),
            agents=tuple(_older(agent) for agent in state.agents),
        )
        if older != state:
            yield Action("tick"), older


def _older(agent: Agent) -> Agent:
    match agent.slot:
        case Asking(age=age):
            return agent._replace(slot=agent.slot._replace(age=min(age + 1, LEASE)))
        case Running(left=left, renewed_ago=ago):
            sent = None if ago is None else min(ago + 1, LEASE)
            return agent._replace(slot=agent.slot._replace(left=max(left - 1, 0), renewed_ago=sent))
        case _:
            return agent


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
