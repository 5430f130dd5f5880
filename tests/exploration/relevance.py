"""Which messages can still change anything: the others need not be kept, for they make states differ that are alike."""

from tests.exploration.state import (
    Agent,
    Ask,
    Cancel,
    Grant,
    Heard,
    Kept,
    Lost,
    Message,
    Renew,
    Result,
    State,
    Stored,
    Task,
)


def relevant(state: State) -> frozenset[Message]:
    """Return the network without what the production rules answer with nothing, now and for ever."""
    kept = _youngest([message for message in state.network if _matters(state, message)])
    return state.network if len(kept) == len(state.network) else frozenset(kept)


def _youngest(messages: list[Message]) -> list[Message]:
    """Return messages without those of which there is one that differs only in being younger."""
    aged = [message for message in messages if isinstance(message, Ask | Grant)]
    if len(aged) < 2:
        return messages
    ages: dict[Message, int] = {}
    for message in aged:
        said = message._replace(age=0)
        ages[said] = min(message.age, ages.get(said, message.age))
    if len(ages) == len(aged):
        return messages
    older = {message for message in aged if message.age > ages[message._replace(age=0)]}
    return [message for message in messages if message not in older]


def _matters(state: State, message: Message) -> bool:
    agent = state.agents[message.agent]
    match message:
        case Ask():
            newest = state.rows[message.agent].newest
            return newest is not None and newest.session == message.session
        case Heard(session=session, granted=granted):
            return session == agent.session and granted > agent.heard
        case _:
            return _concerns_work(state.tasks[message.task], agent, message)


def _concerns_work(task: Task, agent: Agent, message: Grant | Renew | Kept | Lost | Result | Stored | Cancel) -> bool:
    match message:
        case Grant(session=session):
            is_new = session == agent.session and (message.task, message.attempt) not in agent.seen
            return is_new or (
                (message.task, message.attempt) not in agent.seen and task.tries[message.attempt - 1].outcome is None
            )
        case Renew() | Lost() | Cancel():
            return _may_run(agent, task, message.task, message.attempt)
        case Kept():
            slot = agent.slot
            return slot is not None and slot.renewed_ago is not None and slot.attempt == message.attempt
        case Result():
            return task.tries[message.attempt - 1].outcome is None or message in agent.spool
        case Stored():
            return any((one.task, one.attempt) == (message.task, message.attempt) for one in agent.spool) or _may_run(
                agent, task, message.task, message.attempt
            )


def _may_run(agent: Agent, task: Task, number: int, attempt: int) -> bool:
    """Say whether an agent runs an attempt of a task, or may still be told to."""
    if agent.slot is not None and (agent.slot.task, agent.slot.attempt) == (number, attempt):
        return True
    if (number, attempt) in agent.seen:
        return False
    return 1 <= attempt <= task.attempt and task.tries[attempt - 1].session == agent.session
