"""What is published of the reports that are ready together: results as one message, and not too much in one call."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from common.protocol import MOST_RESULTS, MOST_RESULTS_BYTES, join_results

RESULT = "work_result"
RESULTS_TOGETHER = "work_results"
# So much gets through in time over a slow line, too.
MOST_IN_A_CALL = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be stored in a reply queue. A repeated publish is a new message, so this has no message id.

    One that `is_alone` is a message of its own, whatever else is ready.
    """

    queue: str
    type: str
    body: bytes
    is_alone: bool = False


def joined(agent_id: UUID, reports: Iterable[Report]) -> list[Report]:
    """Return reports in which results for the same queue are one, behind everything else, which keeps its order."""
    others: list[Report] = []
    results: dict[str, list[bytes]] = defaultdict(list)
    for report in reports:
        if report.type == RESULT and not report.is_alone:
            results[report.queue].append(report.body)
        else:
            others.append(report)
    together = [_as_one(agent_id, queue, some) for queue, bodies in results.items() for some in _portions(bodies)]
    return [*others, *together]


def calls(reports: Iterable[Report]) -> Iterator[list[Report]]:
    """Yield the reports in their order, so many at a time as are published in one call."""
    call: list[Report] = []
    size = 0
    for report in reports:
        if call and size + len(report.body) > MOST_IN_A_CALL:
            yield call
            call, size = [], 0
        call.append(report)
        size += len(report.body)
    if call:
        yield call


def _as_one(agent_id: UUID, queue: str, bodies: Sequence[bytes]) -> Report:
    if len(bodies) == 1:
        return Report(queue, RESULT, bodies[0])
    return Report(queue, RESULTS_TOGETHER, join_results(agent_id, bodies))


def _portions(bodies: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Yield as many bodies at a time as one message may hold; one that is too large for that, alone."""
    portion: list[bytes] = []
    size = 0
    for body in bodies:
        if portion and (len(portion) == MOST_RESULTS or size + len(body) + 1 > MOST_RESULTS_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(body)
        size += len(body) + 1
    if portion:
        yield portion
