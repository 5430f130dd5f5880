"""What a worker got wrong, and what can be seen from the traffic of any case: pure decisions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from chiffon.conformance.traffic import ENDS, OWN, Exchange, Traffic

# A worker that just got an answer may have sent the next request already, in another thread.
UNDER_WAY = 0.3


class Part(StrEnum):
    """The sentence of the contract (docs/reference/queue-api.md, "Take and finish") that a case is about."""

    FIELDS = "the fields of each request"
    TYPES = "allowedTypes: only these types"
    CLAIM_ID = "claimId makes a claim safe to repeat; a worker that stops asks with it what a claim had got"
    ATTEMPT = "send attempt: then a worker that lost a job cannot finish the new attempt by mistake"
    LEASE = "a heartbeat: the lease runs anew"
    OWNER = "only the owner of the live lease is heard; anyone else gets 409"
    REPEAT = "an answer may be lost: repeat the request"
    ONCE = "two claims never get the same job, and each attempt has one end"
    CANCEL = "a cancelled job answers the heartbeat with cancelled: stop, and say fail with cancelled"
    END = "complete with resultSummary; fail with errorMessage and retryable"
    UNTOUCHED = "started: false hands a job back untouched"
    WAIT = (
        "waitSeconds: with nothing to give, the answer waits; pause before asking again, and longer while errors last"
    )
    ANSWERS = "answers may have more fields than this page lists"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that was wrong, in a sentence, and the part of the contract that says otherwise."""

    text: str
    part: Part


class CaseOver(Exception):
    """The case cannot go on; `problem` says what was wrong."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.text)
        self.problem = problem


def judge(traffic: Traffic) -> list[Problem]:
    """Return what is wrong in any case, each kind of problem once."""
    found = [*_fields(traffic), *_refused(traffic), *_ends(traffic), *_after_refusal(traffic)]
    return list(dict.fromkeys(found))


def _fields(traffic: Iterable[Exchange]) -> Iterator[Problem]:
    for one in traffic:
        needed = ["workerId", "attempt"] if one.action in OWN else ["workerId", "leaseSeconds", "claimId"]
        if one.action not in OWN and one.action != "claim":
            continue
        for name in needed:
            if one.says(name) is None:
                part = {"attempt": Part.ATTEMPT, "claimId": Part.CLAIM_ID}.get(name, Part.FIELDS)
                yield Problem(f"its {one.action} has no {name}", part)


def _refused(traffic: Iterable[Exchange]) -> Iterator[Problem]:
    for one in traffic:
        if one.status is not None and 400 <= one.status < 500 and one.status != 409:
            message = one.answer.get("error_message", "") if isinstance(one.answer, dict) else ""
            yield Problem(f"{one.method} {one.path.split('?')[0]} was answered {one.status}: {message}", Part.FIELDS)


def _ends(traffic: Iterable[Exchange]) -> Iterator[Problem]:
    said: defaultdict[tuple[str | None, object], list[Exchange]] = defaultdict(list)
    for one in traffic:
        if one.action in ENDS:
            said[one.job_id, one.says("attempt")].append(one)
    for (_, attempt), ends in said.items():
        told = next((one for one in ends if one.status == 200 and one.answered_at is not None), None)
        if told is None or told.answered_at is None:
            continue
        again = [one for one in ends if one.asked_at > told.answered_at or one.body != told.body]
        if again:
            yield Problem(
                f"it said {again[0].action} for attempt {attempt}, whose {told.action} was answered 200",
                Part.ONCE,
            )


def _after_refusal(traffic: Traffic) -> Iterator[Problem]:
    for refused in traffic:
        if refused.status != 409 or refused.answered_at is None or refused.action not in OWN:
            continue
        later = traffic.of(*OWN, job=refused.job_id, since=refused.answered_at + UNDER_WAY)
        for one in later:
            if one.says("attempt") in (refused.says("attempt"), None):
                yield Problem(
                    f"it said {one.action} for an attempt after its {refused.action} was answered 409", Part.OWNER
                )
