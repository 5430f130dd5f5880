"""Which messages can still change anything: the others need not be kept, for they make states differ that are alike."""

from tests.exploration.state import (
    Agent,
    Asking,
    Cancel,
    Claim,
    Grant,
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


def relevant(state: State) -> frozenset[Message]:
    """Return the network without what the production rules answer with nothing, now and for ever."""
    kept = [message for message in state.network if _matters(state, message)]
    return state.network if len(kept) == len(state.network) else frozenset(kept)


def _matters(state: State, message: Message) -> bool:
    task = state.tasks[message.task]
    if isinstance(message, Ticket):
        return not task.status.is_final
    agent = state.agents[message.agent]
    match message:
        case Claim(claim=claim):
            return not task.status.is_final or _asks(agent, claim)
        case Refusal(claim=claim):
            return _asks(agent, claim)
        case Grant(claim=claim):
            return _asks(agent, claim) or task.tries[message.attempt - 1].outcome is None
        case Renew() | Lost() | Cancel():
            return _may_run(agent, task, message.task, message.fence)
        case Kept():
            slot = agent.slot
            return isinstance(slot, Running) and slot.renewed_ago is not None and slot.fence == message.fence
        case Result():
            return task.tries[message.attempt - 1].outcome is None or message in agent.spool
        case Stored():
            return any((one.task, one.fence) == (message.task, message.fence) for one in agent.spool) or _may_run(
                agent, task, message.task, message.fence
            )


def _asks(agent: Agent, claim: int) -> bool:
    return isinstance(agent.slot, Asking) and agent.slot.claim == claim


def _may_run(agent: Agent, task: Task, number: int, fence: int) -> bool:
    """Say whether an agent runs a task under a fence, or may still be told to."""
    match agent.slot:
        case Running():
            return (agent.slot.task, agent.slot.fence) == (number, fence)
        case Asking():
            return any((one.fence, one.claim) == (fence, agent.slot.claim) for one in task.tries)
        case _:
            return False
