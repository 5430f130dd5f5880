"""Results that are ready together are one message, which is never larger than one may be."""

from itertools import count
from uuid import UUID, uuid4

import pytest

from agents.link.joining import MOST_IN_A_CALL, RESULT, RESULTS_TOGETHER, Report, calls, joined
from common.broker.topology import PROGRESS, RESULTS
from common.protocol import (
    MOST_REPLY_BYTES,
    MOST_RESULTS,
    MOST_RESULTS_BYTES,
    WorkResultEnvelope,
    WorkResults,
    WorkResultsEnvelope,
    decode,
    encode,
)
from orchestrator.dead_letters.rules import KEPT_BYTES
from tests.factories import make_chunk, make_credit, make_results

AGENT = UUID(int=7)


def reports(count: int, *, queue: str = RESULTS, **values: object) -> list[Report]:
    return [Report(queue, RESULT, encode(result)) for result in make_results(AGENT, count, **values).results]


def together(given: list[Report]) -> list[Report]:
    return joined(AGENT, given, make_credit)


def results_in(report: Report) -> list[WorkResultEnvelope]:
    envelope = decode(report.body, limit=MOST_REPLY_BYTES)
    assert isinstance(envelope, WorkResultsEnvelope)
    assert report.type == RESULTS_TOGETHER
    return envelope.payload.results


def test_results_for_one_queue_are_one_message_in_their_order() -> None:
    here, there = reports(3), reports(2, queue=PROGRESS)

    [first, second] = together([here[0], there[0], here[1], there[1], here[2]])

    assert (first.queue, first.type) == (RESULTS, RESULTS_TOGETHER)
    assert [encode(result) for result in results_in(first)] == [report.body for report in here]
    assert (second.queue, second.type) == (PROGRESS, RESULTS_TOGETHER)
    assert [encode(result) for result in results_in(second)] == [report.body for report in there]


def test_a_result_by_itself_travels_like_many() -> None:
    [report] = reports(1)

    [message] = together([report])

    assert [encode(result) for result in results_in(message)] == [report.body]


def test_each_message_of_results_asks_for_work_anew() -> None:
    first, second = reports(2)
    numbers = count(1)

    messages = joined(
        AGENT,
        [first, Report(second.queue, second.type, second.body, is_alone=True), *reports(1, queue=PROGRESS)],
        lambda: make_credit(number=next(numbers)),
    )

    payloads = [decode(message.body).payload for message in messages]
    credits = [payload.credit for payload in payloads if isinstance(payload, WorkResults)]
    assert [credit and credit.number for credit in credits] == [1, 2, 3]


def test_results_stay_behind_whatever_was_said_before_them() -> None:
    first, second = reports(2, queue=PROGRESS)
    output = [Report(PROGRESS, "work_status", b"1"), Report(PROGRESS, "work_status", b"2")]

    [*ahead, last] = together([output[0], first, output[1], second])

    assert ahead == output
    assert len(results_in(last)) == 2


def test_one_that_is_to_be_alone_is_alone() -> None:
    first, second, third = reports(3)
    alone = Report(second.queue, second.type, second.body, is_alone=True)

    [by_itself, others] = together([first, alone, third])

    assert [encode(result) for result in results_in(by_itself)] == [second.body]
    assert [encode(result) for result in results_in(others)] == [first.body, third.body]


def test_a_message_holds_so_many_results_and_no_more() -> None:
    parts = together([*reports(MOST_RESULTS), *reports(MOST_RESULTS), *reports(1)])

    assert [len(results_in(part)) for part in parts] == [MOST_RESULTS, MOST_RESULTS, 1]


def test_a_message_holds_so_many_bytes_and_the_ledger_keeps_all_of_it_if_it_ends_there() -> None:
    given = reports(90, result="x" * 30_000)

    parts = together(given)

    assert [result for part in parts for result in results_in(part)] == [decode(report.body) for report in given]
    assert all(len(part.body) <= KEPT_BYTES for part in parts)
    assert len(parts) == -(-90 // (MOST_RESULTS_BYTES // (len(given[0].body) + 1)))


def test_a_result_that_fills_a_message_by_itself_travels_alone() -> None:
    chunks = [make_chunk(number, "x" * 200_000, offset=number * 200_000) for number in range(6)]
    small, large, other = *reports(1), *reports(1, chunks=chunks), *reports(1)
    assert len(large.body) > MOST_RESULTS_BYTES

    messages = together([small, large, other])

    assert [[encode(one) for one in results_in(each)] for each in messages] == [
        [small.body],
        [large.body],
        [other.body],
    ]


@pytest.mark.parametrize("sizes", [[1, 1, 1], [MOST_IN_A_CALL, 1], [MOST_IN_A_CALL - 1, 1, 1], [MOST_IN_A_CALL * 2]])
def test_a_call_publishes_so_much_at_most_and_everything_in_its_order(sizes: list[int]) -> None:
    given = [Report(RESULTS, str(uuid4()), b"x" * size) for size in sizes]

    made = list(calls(given))

    assert [report for call in made for report in call] == given
    assert all(len(call) == 1 or sum(len(report.body) for report in call) <= MOST_IN_A_CALL for call in made)
