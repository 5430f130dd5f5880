"""Results that are ready together are one message, which is never larger than one may be."""

from uuid import UUID, uuid4

import pytest

from agents.joining import MOST_IN_A_CALL, RESULT, RESULTS_TOGETHER, Report, calls, joined
from common.broker.topology import PROGRESS, RESULTS
from common.protocol import (
    MOST_REPLY_BYTES,
    MOST_RESULTS,
    MOST_RESULTS_BYTES,
    WorkResultEnvelope,
    WorkResultsEnvelope,
    decode,
    encode,
)
from orchestrator.dead_letters.rules import KEPT_BYTES
from tests.factories import make_chunk, make_results

AGENT = UUID(int=7)


def reports(count: int, *, queue: str = RESULTS, **values: object) -> list[Report]:
    return [Report(queue, RESULT, encode(result)) for result in make_results(AGENT, count, **values).results]


def results_in(report: Report) -> list[WorkResultEnvelope]:
    envelope = decode(report.body, limit=MOST_REPLY_BYTES)
    if isinstance(envelope, WorkResultsEnvelope):
        return envelope.payload.results
    assert isinstance(envelope, WorkResultEnvelope)
    return [envelope]


def test_results_for_one_queue_are_one_message_in_their_order() -> None:
    here, there = reports(3), reports(2, queue=PROGRESS)

    [first, second] = joined(AGENT, [here[0], there[0], here[1], there[1], here[2]])

    assert (first.queue, first.type) == (RESULTS, RESULTS_TOGETHER)
    assert [encode(result) for result in results_in(first)] == [report.body for report in here]
    assert (second.queue, second.type) == (PROGRESS, RESULTS_TOGETHER)
    assert [encode(result) for result in results_in(second)] == [report.body for report in there]


def test_a_result_by_itself_travels_as_it_is() -> None:
    [report] = reports(1)

    assert joined(AGENT, [report]) == [report]


def test_results_stay_behind_whatever_was_said_before_them() -> None:
    first, second = reports(2, queue=PROGRESS)
    output = [Report(PROGRESS, "work_status", b"1"), Report(PROGRESS, "work_status", b"2")]

    [*ahead, last] = joined(AGENT, [output[0], first, output[1], second])

    assert ahead == output
    assert len(results_in(last)) == 2


def test_one_that_is_to_be_alone_is_alone() -> None:
    first, second, third = reports(3)
    alone = Report(second.queue, second.type, second.body, is_alone=True)

    assert {len(results_in(report)) for report in joined(AGENT, [first, alone, third])} == {1, 2}
    assert alone in joined(AGENT, [first, alone, third])


def test_a_message_holds_so_many_results_and_no_more() -> None:
    parts = joined(AGENT, [*reports(MOST_RESULTS), *reports(MOST_RESULTS), *reports(1)])

    assert [len(results_in(part)) for part in parts] == [MOST_RESULTS, MOST_RESULTS, 1]


def test_a_message_holds_so_many_bytes_and_the_ledger_keeps_all_of_it_if_it_ends_there() -> None:
    given = reports(90, result="x" * 30_000)

    parts = joined(AGENT, given)

    assert [result for part in parts for result in results_in(part)] == [decode(report.body) for report in given]
    assert all(len(part.body) <= KEPT_BYTES for part in parts)
    assert len(parts) == -(-90 // (MOST_RESULTS_BYTES // (len(given[0].body) + 1)))


def test_a_result_that_fills_a_message_by_itself_travels_alone_and_as_it_is() -> None:
    chunks = [make_chunk(number, "x" * 200_000, offset=number * 200_000) for number in range(6)]
    small, large, other = *reports(1), *reports(1, chunks=chunks), *reports(1)
    assert len(large.body) > MOST_RESULTS_BYTES

    assert joined(AGENT, [small, large, other]) == [small, large, other]


@pytest.mark.parametrize("sizes", [[1, 1, 1], [MOST_IN_A_CALL, 1], [MOST_IN_A_CALL - 1, 1, 1], [MOST_IN_A_CALL * 2]])
def test_a_call_publishes_so_much_at_most_and_everything_in_its_order(sizes: list[int]) -> None:
    given = [Report(RESULTS, str(uuid4()), b"x" * size) for size in sizes]

    made = list(calls(given))

    assert [report for call in made for report in call] == given
    assert all(len(call) == 1 or sum(len(report.body) for report in call) <= MOST_IN_A_CALL for call in made)
