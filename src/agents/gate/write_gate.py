"""The one way to an executor.

Work passes these checks, in this order: the orchestrator's signature for this agent, now, and exactly this work; an
attempt that did not begin before; the agent's own policy, which only the host's administrator can widen; a line in the
journal, on disk. Only then does it become `Permitted`, which is all that an executor takes.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.attempts.begun import Begun
from agents.disk.journal import Journal
from agents.disk.spool_lines import Key
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.permitted import Permitted
from agents.gate.signature_check import SignatureCheck
from agents.processes.life import own_life
from common.confinement import Confinement
from common.errors import ErrorCode
from common.messages import GrantedTask, ResultStatus
from common.policy.model import Effect, Refused, Ruling, Work

log = logging.getLogger(__name__)

OwnPolicy = Callable[[Work], Ruling | Refused]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why this agent does not run work. Nothing of it ran, so it goes back, and to another agent first."""

    code: ErrorCode
    reason: str

    @property
    def outcome(self) -> Outcome:
        return Outcome.failed(self.reason, code=self.code)


class Passage:
    """One piece of work on its way through the gate. `began`: something of it may have run."""

    def __init__(self, gate: "WriteGate", grant: GrantedTask, executor: Executor[Any], permitted: Permitted) -> None:
        self._gate = gate
        self._grant = grant
        self._executor = executor
        self._permitted = permitted
        self.began = False

    @property
    def needs_workspace(self) -> bool:
        return self._executor.needs_workspace

    @property
    def owns_its_end(self) -> bool:
        """Whether the work brings itself to an end, whatever becomes of its lease."""
        return self._executor.owns_its_end

    @property
    def confinement(self) -> Confinement:
        """How far the programs must be shut in: the stricter of what the orchestrator and this agent demand."""
        return self._permitted.confinement

    async def execute(self, context: ExecutionContext) -> Outcome:
        """Run the work to its end, or nothing of it if a stop was ordered before.

        Raises `OSError` when the journal cannot be written: then nothing ran.
        """
        if context.stop.reason is not None:
            return Outcome(ResultStatus.CANCELLED)
        self._gate.note(self._grant)
        self.began = True
        return await self._executor.execute(self._permitted, context)


class WriteGate:
    """The only owner of the executors."""

    def __init__(
        self,
        executors: Mapping[str, Executor[Any]],
        *,
        agent_type: str,
        journal: Journal,
        signatures: SignatureCheck,
        begun: Begun,
        policy: OwnPolicy | None = None,
    ) -> None:
        self._executors = executors
        self._agent_type = agent_type
        self._journal = journal
        self._signatures = signatures
        self._begun = begun
        self._policy = policy
        self._life = own_life()

    def admit(self, grant: GrantedTask, signature: str | None = None, credit: int | None = None) -> Passage | Refusal:
        """Let work through, or say why not. What was let through once is not let through again.

        `signature` and `credit` are those of the message that brought it.
        """
        if (problem := self._signatures.refusal(grant, signature, credit)) is not None:
            return self._refused(grant, _not_genuine(grant, problem))
        if not self._begun.begin(Key(grant.work.task_id, grant.attempt)):
            return self._refused(grant, _not_genuine(grant, "this attempt began before"))
        executor = self._executors.get(grant.work.work_type)
        if executor is None:
            message = f"This agent has no executor for {grant.work.work_type!r}."
            return self._refused(grant, Refusal(ErrorCode.UNSUPPORTED_WORK_TYPE, message))
        confinement, effect = grant.confinement, grant.effect
        if self._policy is not None:
            ruling = self._policy(self._work(grant))
            if isinstance(ruling, Refused):
                message = f"The agent's own policy refuses this: {ruling.reason}"
                return self._refused(grant, Refusal(ErrorCode.POLICY_REFUSED, message))
            if ruling.approval is not None and grant.approval_id is None:
                message = f"The agent's own policy asks for an approval, and there is none (rule {ruling.rule!r})."
                return self._refused(grant, Refusal(ErrorCode.POLICY_REFUSED, message))
            confinement = confinement.with_also(ruling.confinement)
            effect = Effect.WRITE if Effect.WRITE in (effect, ruling.effect) else effect
        return Passage(self, grant, executor, Permitted(grant.work, effect, confinement, grant.approval_id))

    def note(self, grant: GrantedTask) -> None:
        """Write into the journal that the work starts. Raises `OSError`."""
        self._journal.started(
            grant,
            host_boot_id=self._life.host_boot_id,
            agent_pid=self._life.pid,
            agent_ticks=self._life.start_ticks,
            pid_namespace=self._life.pid_namespace,
        )

    def _work(self, grant: GrantedTask) -> Work:
        return Work(grant.work.work_type, self._agent_type, grant.work.parameters, grant.work.hints)

    def _refused(self, grant: GrantedTask, refusal: Refusal) -> Refusal:
        log.warning(
            "work.refused",
            extra={"task_id": grant.work.task_id, "error_code": refusal.code.value, "reason": refusal.reason},
        )
        return refusal


def _not_genuine(grant: GrantedTask, problem: str) -> Refusal:
    # Signed, but something else than what was approved: the work, or the ledger, was changed after the approval.
    is_edited = problem.startswith("digest ") and grant.approval_id is not None
    code = ErrorCode.APPROVAL_MISMATCH if is_edited else ErrorCode.AUTHENTICATION_FAILED
    return Refusal(code, f"The agent does not run this grant: {problem}.")
