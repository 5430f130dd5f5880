"""Deaf is who published several heartbeats and heard of none."""

import asyncio
from datetime import timedelta

from agents.contact.hearing import Hearing

EVERY = timedelta(seconds=10)


def make_hearing(*, give_up_after: float | None = None) -> Hearing:
    return Hearing(every=EVERY, give_up_after=None if give_up_after is None else timedelta(seconds=give_up_after))


def beat(hearing: Hearing, *times: float) -> None:
    for at in times:
        hearing.sent(at=at)


def test_answers_that_come_keep_everything_as_it_is() -> None:
    hearing = make_hearing()
    for now in range(0, 1000, 10):
        hearing.sent(at=now)
        hearing.heard(at=now + 1)
        assert not hearing.must_reconnect(now=now + 9)


def test_who_never_heard_anything_is_not_deaf() -> None:
    hearing = make_hearing()
    beat(hearing, *range(0, 1000, 10))

    assert not hearing.must_reconnect(now=1000)


def test_several_beats_without_an_answer_call_for_new_connections() -> None:
    hearing = make_hearing()
    hearing.heard(at=0)
    beat(hearing, 10, 20, 30, 40)

    assert not hearing.must_reconnect(now=49)
    assert hearing.must_reconnect(now=50)
    assert hearing.is_deaf


def test_beats_that_could_not_be_published_are_not_missed() -> None:
    hearing = make_hearing()
    hearing.heard(at=0)
    beat(hearing, 10, 20)

    assert not hearing.must_reconnect(now=1000)


def test_new_connections_are_tried_ever_more_rarely() -> None:
    hearing = make_hearing()
    hearing.heard(at=0)
    reconnects = []
    for now in range(10, 2000, 10):
        hearing.sent(at=now)
        if hearing.must_reconnect(now=now):
            reconnects.append(now)

    # Each wait is counted from the first beat that the new connection took.
    assert reconnects == [50, 140, 310, 640, 1250, 1860]


def test_one_answer_ends_the_deafness() -> None:
    hearing = make_hearing()
    hearing.heard(at=0)
    beat(hearing, 10, 20, 30)
    assert hearing.must_reconnect(now=50)

    hearing.heard(at=55)

    assert not hearing.is_deaf
    beat(hearing, 60, 70)
    assert not hearing.must_reconnect(now=90)


def test_giving_up_is_a_choice_and_takes_its_time() -> None:
    patient, impatient = make_hearing(), make_hearing(give_up_after=300)
    for hearing in (patient, impatient):
        hearing.heard(at=0)
        beat(hearing, 10, 20, 30)
        assert hearing.must_reconnect(now=50)

    assert not impatient.must_give_up(now=299)
    assert impatient.must_give_up(now=300)
    assert not patient.must_give_up(now=10_000)


async def test_the_answer_to_another_process_does_not_say_that_this_one_is_known() -> None:
    hearing = make_hearing()

    hearing.heard(at=0, is_own=False)
    was_known = hearing.has_heard
    hearing.heard(at=1, is_own=True)

    assert (was_known, hearing.has_heard) == (False, True)
    await asyncio.wait_for(hearing.answered(), 1)
