"""Who of a key may go: decided inside the transactions that store tasks or end them.

The order of locks, for every transaction that can let a task with a key begin or end:

1. the advisory locks of its ordering keys, sorted,
2. the advisory locks of its concurrency keys, sorted (those of the tasks that may come first now among them),
3. rows of tasks, in the order of their ids,
4. rows of agents, in the order of their ids,
5. rows of the outbox, and the head of the events last.

Nobody waits for a key while holding a row, so keys and rows cannot make a circle. A row that is not admitted is changed
only by those who hold its keys; leasing locks none of them. Because a key is held from before the insert to the commit,
the numbers of dispatch within it rise in the order of commits, and what was once the first stays the first.

A task that is cancelled while it runs is final at once, but its agent needs a moment to stop it. Its keys are free when
the agent says so, or when its lease is over: then the agent has stopped it or is cut off and has stopped it by itself.
"""

from collections.abc import Collection, Mapping
from uuid import UUID

from orchestrator.database.pool import Connection
from orchestrator.keys import queries
from orchestrator.keys.model import Keys, Limit
from orchestrator.keys.queries import LockClass


async def hold(db: Connection, keys: Keys) -> None:
    """Hold keys until the transaction ends. Call it before any row is locked, and once in a transaction."""
    await queries.hold(db, LockClass.ORDERING, keys.ordering)
    await queries.hold(db, LockClass.CONCURRENCY, keys.concurrency)


async def hold_for(db: Connection, task_ids: Collection[UUID]) -> None:
    """Hold whatever is needed to end these tasks. Call it before any row is locked, and once in a transaction."""
    keys = await queries.keys_of(db, task_ids)
    if not keys:
        return
    await queries.hold(db, LockClass.ORDERING, keys.ordering)
    # Who comes next cannot change any more, but has a limit of its own, perhaps of a key that none of these has.
    following = await queries.concurrency_keys_of_next(db, keys.ordering, task_ids) if keys.ordering else set()
    await queries.hold(db, LockClass.CONCURRENCY, keys.concurrency | following)


async def limit(db: Connection, limits: Mapping[str, Limit]) -> None:
    """Set the limits of concurrency keys that are held.

    What is beyond a lower limit and was never claimed waits again; what runs, or is tried again, goes on.
    """
    changed = await queries.set_limits(db, limits) if limits else []
    if changed:
        await queries.withdraw(db, changed)


async def is_stopping(db: Connection, task_ids: Collection[UUID]) -> None:
    """Keep the keys of locked tasks that run, and the runs that they are steps of; call it just before they are
    cancelled.
    """
    if task_ids:
        await queries.is_stopping(db, task_ids)


async def stopped(db: Connection, attempts: Collection[tuple[UUID, int, UUID]]) -> Keys:
    """Note that the attempts (task_id, attempt, agent_id) of cancelled tasks no longer run; return what they held."""
    return await queries.stopped(db, attempts) if attempts else Keys()


async def admit(db: Connection, keys: Keys) -> None:
    """Let go the next of these keys, which are held, after tasks of them were stored or have ended."""
    waiting = await queries.admit_in_order(db, keys.ordering) if keys.ordering else set()
    if concurrency := keys.concurrency | waiting:
        await queries.admit_within_limits(db, concurrency)
