"""What passes the gate, and what does not, whoever delivers it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.attempts.begun import Begun
from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile
from agents.disk.leftovers import begun
from agents.disk.spool_lines import Key
from agents.executors.base import ExecutionContext, Outcome
from agents.executors.echo import EchoExecutor
from agents.executors.permitted import Permitted
from agents.gate.signature_check import SignatureCheck
from agents.gate.trust import TRUST_FILE, Trust
from agents.gate.write_gate import OwnPolicy, Passage, Refusal, WriteGate
from agents.processes.keepers import Keepers
from common.clock import SystemClock
from common.confinement import Confinement
from common.errors import ErrorCode
from common.messages import GrantedTask
from common.policy.model import ApprovalDemand, Effect, Refused, Ruling, Work
from common.signing.claims import SignedTask, sign_grant
from common.signing.jws import Purpose, Signed
from common.signing.keys import PrivateKey
from tests.factories import make_grant
from tests.fakes.clock import FakeClock
from tests.unit.agents.executing import Output, make_context

AGENT, SKEW, LEASE = UUID(int=7), timedelta(minutes=5), timedelta(minutes=1)


@dataclass
class Gated:
    gate: WriteGate
    key: PrivateKey
    clock: FakeClock

    def signature(
        self, *grants: GrantedTask, agent_id: UUID = AGENT, key: PrivateKey | None = None, credit: int | None = None
    ) -> str:
        tasks = [SignedTask.of(grant) for grant in grants]
        return sign_grant(key or self.key, agent_id, tasks, now=self.clock.now(), valid=LEASE, credit=credit)

    async def problem(self, grant: GrantedTask, signature: str | None) -> str:
        """Return why the gate refuses."""
        answer = self.gate.admit(grant, signature)
        assert isinstance(answer, Refusal)
        assert answer.code is ErrorCode.AUTHENTICATION_FAILED
        return answer.reason


class Recording(EchoExecutor):
    """Notes what the gate let through."""

    def __init__(self) -> None:
        self.permitted: list[Permitted] = []

    async def execute(self, work: Permitted, context: ExecutionContext) -> Outcome:
        self.permitted.append(work)
        return await super().execute(work, context)


@asynccontextmanager
async def gated(
    folder: Path, *, policy: OwnPolicy | None = None, executor: EchoExecutor | None = None
) -> AsyncIterator[Gated]:
    key, clock = PrivateKey.new(), FakeClock()
    trust = Trust(folder / TRUST_FILE, [key.public])
    signatures = SignatureCheck(trust, AGENT, clock, skew=SKEW, claim_of=lambda grant: grant.claim_id)
    with Journal(JournalFile(folder / "journal.jsonl"), session=uuid4(), host_boot_id="boot") as journal:
        yield Gated(
            WriteGate(
                {"echo": executor or EchoExecutor()},
                agent_type="infra",
                journal=journal,
                signatures=signatures,
                begun=Begun(),
                policy=policy,
            ),
            key,
            clock,
        )


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Gated]:
    async with gated(tmp_path) as opened:
        yield opened


async def test_what_the_orchestrator_signed_for_this_agent_passes_once(it: Gated) -> None:
    grants = [make_grant(), make_grant()]
    signature = it.signature(*grants)

    assert isinstance(it.gate.admit(grants[0], signature), Passage)
    assert isinstance(it.gate.admit(grants[1], signature), Passage)
    assert "began before" in await it.problem(grants[0], signature)


async def test_nothing_unsigned_passes(it: Gated) -> None:
    assert "not signed" in await it.problem(make_grant(), None)


async def test_nothing_passes_that_is_signed_for_another_agent(it: Gated) -> None:
    grant = make_grant()

    assert "another agent" in await it.problem(grant, it.signature(grant, agent_id=uuid4()))


async def test_a_signature_counts_for_its_tasks_only(it: Gated) -> None:
    assert "another task" in await it.problem(make_grant(), it.signature(make_grant()))


async def test_a_grant_runs_until_it_expires_by_clocks_that_may_differ_a_little(it: Gated) -> None:
    grant = make_grant()
    signature = it.signature(grant)

    it.clock.advance(seconds=(LEASE + SKEW).total_seconds() + 2)
    assert "expired" in await it.problem(grant, signature)
    it.clock.advance(seconds=-2 * (LEASE + SKEW).total_seconds())
    assert "future" in await it.problem(grant, signature)
    it.clock.advance(seconds=(LEASE + SKEW).total_seconds())
    assert isinstance(it.gate.admit(grant, signature), Passage)


async def test_the_message_that_a_grant_answers_is_signed(it: Gated) -> None:
    grant = make_grant()
    signature = it.signature(grant, credit=7)

    for other in (6, 8, None):
        answer = it.gate.admit(grant, signature, other)
        assert isinstance(answer, Refusal)
        assert "credit is not what was signed" in answer.reason
    assert isinstance(it.gate.admit(grant, signature, 7), Passage)


CHANGES: dict[str, Callable[[GrantedTask], dict[str, Any]]] = {
    "claim_id": lambda _: {"claim_id": uuid4()},
    "trace_id": lambda _: {"trace_id": uuid4()},
    "request_id": lambda _: {"request_id": uuid4()},
    "attempt": lambda _: {"attempt": 2},
    "lease_seconds": lambda _: {"lease_seconds": 61.0},
    "max_output_bytes": lambda _: {"max_output_bytes": 1},
    "target": lambda _: {"target": "desktop"},
    "policy_version": lambda _: {"policy_version": "other"},
    "effect": lambda _: {"effect": Effect.READ},
    "approval_id": lambda _: {"approval_id": uuid4()},
    "confinement": lambda _: {"confinement": Confinement(max_open_files=16)},
    "parameters": lambda grant: {"work": grant.work.model_copy(update={"parameters": {"message": "goodbye"}})},
    "hints": lambda grant: {"work": grant.work.model_copy(update={"hints": {"note": "x"}})},
    "work_type": lambda grant: {"work": grant.work.model_copy(update={"work_type": "shell_script"})},
    "task_id": lambda grant: {"work": grant.work.model_copy(update={"task_id": uuid4()})},
}


@pytest.mark.parametrize("field", CHANGES)
async def test_nothing_passes_of_which_anything_was_changed(field: str, it: Gated) -> None:
    grant = make_grant()
    signature = it.signature(grant)
    changed = grant.model_copy(update=CHANGES[field](grant))

    answer = it.gate.admit(changed, signature)

    assert isinstance(answer, Refusal)
    assert answer.outcome.retryable is False
    assert isinstance(it.gate.admit(grant, signature), Passage)


def test_every_field_of_a_grant_is_among_those_changes() -> None:
    assert {*GrantedTask.model_fields, "task_id", "work_type", "parameters", "hints"} - {"work"} == {*CHANGES}


async def test_work_that_was_edited_after_its_approval_is_said_to_be(it: Gated) -> None:
    grant = make_grant(approval_id=uuid4())
    edited = grant.work.model_copy(update={"parameters": {"message": "rm"}})

    answer = it.gate.admit(grant.model_copy(update={"work": edited}), it.signature(grant))

    assert isinstance(answer, Refusal)
    assert answer.code is ErrorCode.APPROVAL_MISMATCH


async def test_what_no_executor_is_for_is_refused(it: Gated) -> None:
    grant = make_grant("unheard_of")

    answer = it.gate.admit(grant, it.signature(grant))

    assert isinstance(answer, Refusal)
    assert answer.code is ErrorCode.UNSUPPORTED_WORK_TYPE


async def test_the_agents_own_policy_has_the_last_word(tmp_path: Path) -> None:
    def never(_work: Work) -> Refused:
        return Refused("not on this host", "1")

    def once_approved(_work: Work) -> Ruling:
        demand = ApprovalDemand(request_minutes=60, valid_minutes=5)
        return Ruling("r", "1", Effect.WRITE, demand)

    async with gated(tmp_path, policy=never) as it:
        grant = make_grant()
        answer = it.gate.admit(grant, it.signature(grant))
        assert isinstance(answer, Refusal)
        assert (answer.code, "not on this host" in answer.reason) == (ErrorCode.POLICY_REFUSED, True)
    async with gated(tmp_path, policy=once_approved) as it:
        unapproved, approved = make_grant(), make_grant(approval_id=uuid4())
        answer = it.gate.admit(unapproved, it.signature(unapproved))
        assert isinstance(answer, Refusal)
        assert answer.code is ErrorCode.POLICY_REFUSED
        assert isinstance(it.gate.admit(approved, it.signature(approved)), Passage)


async def test_the_agents_own_policy_rules_about_exactly_the_work_that_is_granted(tmp_path: Path) -> None:
    asked: list[Work] = []

    def noting(work: Work) -> Ruling:
        asked.append(work)
        return Ruling("r", "1", Effect.READ)

    async with gated(tmp_path, policy=noting) as it:
        grant = make_grant(parameters={"message": "x"}, target="desktop")
        hinted = grant.model_copy(update={"work": grant.work.model_copy(update={"hints": {"note": "y"}})})
        assert isinstance(it.gate.admit(hinted, it.signature(hinted)), Passage)

    # The pool is the agent's own, whatever the grant says.
    assert asked == [Work("echo", "infra", {"message": "x"}, {"note": "y"})]


@pytest.mark.parametrize(
    ("granted", "demanded", "enforced"),
    [
        (Confinement(), Confinement(network_off=True), Confinement(network_off=True)),
        (Confinement(sandbox=True), Confinement(network_off=True), Confinement(sandbox=True, network_off=True)),
        (Confinement(max_open_files=64), Confinement(max_open_files=32), Confinement(max_open_files=32)),
        (Confinement(max_open_files=32), Confinement(max_open_files=64), Confinement(max_open_files=32)),
    ],
    ids=["only the host", "both", "the host is stricter", "the orchestrator is stricter"],
)
async def test_what_the_agents_own_policy_demands_is_enforced_besides_what_was_granted(
    tmp_path: Path, granted: Confinement, demanded: Confinement, enforced: Confinement
) -> None:
    def walled(_work: Work) -> Ruling:
        return Ruling("r", "1", Effect.WRITE, confinement=demanded)

    async with gated(tmp_path, policy=walled) as it:
        grant = make_grant(confinement=granted)
        passage = it.gate.admit(grant, it.signature(grant))

    assert isinstance(passage, Passage)
    assert passage.confinement == enforced


@pytest.mark.parametrize(
    ("granted", "ruled", "effect"),
    [
        (Effect.READ, Effect.READ, Effect.READ),
        (Effect.READ, Effect.WRITE, Effect.WRITE),
        (Effect.WRITE, Effect.READ, Effect.WRITE),
    ],
)
async def test_work_writes_when_the_orchestrator_or_the_agents_own_policy_says_so(
    tmp_path: Path, keepers: Keepers, granted: Effect, ruled: Effect, effect: Effect
) -> None:
    executor = Recording()

    async with gated(tmp_path, policy=lambda _work: Ruling("r", "1", ruled), executor=executor) as it:
        grant = make_grant(effect=granted)
        passage = it.gate.admit(grant, it.signature(grant))
        assert isinstance(passage, Passage)
        await passage.execute(make_context(tmp_path, keepers, Output()))

    assert [one.effect for one in executor.permitted] == [effect]


async def test_an_attempt_that_an_earlier_life_began_does_not_begin_again(tmp_path: Path) -> None:
    grant = make_grant()
    async with gated(tmp_path) as it:
        it.gate.note(grant)

    known = Begun(begun(JournalFile(tmp_path / "journal.jsonl").read()))

    key = Key(grant.work.task_id, grant.attempt)
    assert known.is_of_earlier_life(key)
    assert not known.begin(key)
    assert known.begin(key._replace(attempt=2))
    assert not known.is_of_earlier_life(key._replace(attempt=2))


async def test_the_signature_of_a_message_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    check = Trust.check

    def counted(trust: Trust, signature: str, purpose: Purpose) -> Signed:
        checked.append(signature)
        return check(trust, signature, purpose)

    monkeypatch.setattr(Trust, "check", counted)
    async with gated(tmp_path) as it:
        grants = [make_grant() for _ in range(16)]
        signature = it.signature(*grants)
        for grant in grants:
            assert isinstance(it.gate.admit(grant, signature), Passage)

    assert len(checked) == 1


async def test_nothing_is_checked_where_signatures_are_off() -> None:
    signatures = SignatureCheck(None, AGENT, SystemClock(), skew=SKEW, claim_of=lambda grant: grant.claim_id)

    assert signatures.refusal(make_grant(), None, None) is None


async def test_nothing_is_run_that_this_process_did_not_ask_for() -> None:
    signatures = SignatureCheck(None, AGENT, SystemClock(), skew=SKEW, claim_of=lambda _: None)

    assert signatures.refusal(make_grant(), None, None) == "this agent did not ask for it"
