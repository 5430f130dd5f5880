"""Safeguards that a world does without: its programs run on a copy of the product in which one is taken away."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from tests.mutants.change import Change


class Safeguard(StrEnum):
    """What each one is for."""

    FENCE = "fence"
    """A result counts only for the attempt that has the live lease."""
    REGRANT = "regrant"
    """Work that was leased to an agent which never heard of it is granted once more."""
    PERSISTENCE = "persistence"
    """The broker keeps messages on disk."""
    DEDUPE = "dedupe"
    """The same dispatch sent twice is one task."""
    SPOOL_FSYNC = "spool_fsync"
    """A result is on the agent's disk, past every cache, before it is sent."""
    SELF_FENCING = "self_fencing"
    """An agent that cannot renew stops its work before the lease ends."""


_LOCK = "            known = await tasks.lock(db, sorted({result.task_id for result in results}))\n"
# Every result is taken for that of the live lease, whosever it is.
_UNFENCED = """
            running = {id: task for id, task in known.items() if task.status is Status.RUNNING}
            verdicts |= {_key(result): Stale("") for result in results}
            results = [
                result.model_copy(update={"attempt": task.attempt, "agent_id": task.agent_id})
                if (task := running.get(result.task_id)) else result
                for result in results
            ]
"""
_OTHER_IDS = """
        import dataclasses, uuid
        tasks = [dataclasses.replace(task, task_id=uuid.uuid4(), request_id=uuid.uuid4()) for task in tasks]
"""

CHANGES: Mapping[Safeguard, tuple[Change, ...]] = MappingProxyType(
    {
        Safeguard.FENCE: (
            Change(
                "src/orchestrator/leases/service.py",
                "await plain_results.finish(self._pool, ordered, credits or {}, self.given, policy=self._policy)",
                "[], None",
            ),
            Change(
                "src/orchestrator/leases/service.py",
                _LOCK,
                _LOCK + _UNFENCED,
            ),
        ),
        Safeguard.REGRANT: (Change("src/orchestrator/leases/service.py", "if not lost:", "if True:"),),
        Safeguard.PERSISTENCE: (
            Change(
                "src/common/broker/rabbitmq_publisher.py",
                "PERSISTENT if outgoing.persistent else TRANSIENT",
                "TRANSIENT",
            ),
        ),
        Safeguard.DEDUPE: (
            Change(
                "src/orchestrator/dispatch/service.py",
                "[task for task in tasks if _is_plain(task)] if _are_distinct(tasks) else []",
                "[]",
            ),
            Change(
                "src/orchestrator/tasks/service.py",
                "        await admission.hold(db, Keys.of(tasks))\n",
                f"{_OTHER_IDS}        await admission.hold(db, Keys.of(tasks))\n",
            ),
        ),
        Safeguard.SPOOL_FSYNC: (Change("src/common/durable.py", "    os.fsync(handle)\n", "    pass\n"),),
        Safeguard.SELF_FENCING: (
            Change(
                "src/agents/tasks/renew.py",
                "return attempt.lease_until - min(needed, attempt.grant.lease_seconds / 4)",
                'return float("inf")',
            ),
            Change(
                "src/agents/processes/deadlines.py",
                "return attempt.lease_until - attempt.grant.lease_seconds / 20",
                'return float("inf")',
            ),
        ),
    }
)
