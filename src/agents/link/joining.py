"""Join the reports that are ready together: results into one message, and not too much into one call.

Each message of results asks for more work.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from common.messages import Credit
from common.protocol import MOST_RESULTS, MOST_RESULTS_BYTES, join_results

RESULT = "work_result"
RESULTS_TOGETHER = "work_results"

AskForWork = Callable[[], Credit]

# So much gets through in time over a slow line, too.
MOST_IN_A_CALL = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Report:
    """What is to be stored in a reply queue. A repeated publish is a new message, so this has no message id.

    A result that `is_alone` is in a message of its own, whatever else is ready.
    """

    queue: str
    type: str
    body: bytes
    is_alone: bool = False


def joined(agent_id: UUID, reports: Iterable[Report], ask: AskForWork) -> list[Report]:
    """Return reports in which results for the same queue are one, behind everything else, which keeps its order."""
    others: list[Report] = []
    results: dict[str, list[bytes]] = defaultdict(list)
    for report in reports:
        if report.type != RESULT:
            others.append(report)
        elif report.is_alone:
            others.append(_as_one(agent_id, report.queue, [report.body], ask()))
        else:
            results[report.queue].append(report.body)
    together = [
        _as_one(agent_id, queue, some, ask()) for queue, bodies in results.items() for some in _portions(bodies)
    ]
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


def _as_one(agent_id: UUID, queue: str, bodies: Sequence[bytes], credit: Credit) -> Report:
    return Report(queue, RESULTS_TOGETHER, join_results(agent_id, bodies, credit=credit))


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
