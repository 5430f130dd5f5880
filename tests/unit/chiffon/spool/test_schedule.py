"""Which file may be worked on when."""

from chiffon.spool.schedule import Candidate, Schedule

A1, A2, B1, FREE = Candidate("1", "a"), Candidate("2", "a"), Candidate("3", "b"), Candidate("4", None)


def test_one_of_a_key_at_a_time_and_others_side_by_side() -> None:
    schedule = Schedule(limit=9)

    assert schedule.choose([A1, A2, B1, FREE], now=0) == [A1, B1, FREE]
    schedule.started(A1)
    assert schedule.choose([A2, B1], now=0) == [B1]
    schedule.ended(A1.name)
    assert schedule.choose([A2, B1], now=0) == [A2, B1]


def test_no_more_than_the_limit_at_a_time() -> None:
    schedule = Schedule(limit=2)
    schedule.started(FREE)

    assert schedule.choose([FREE, A1, B1], now=0) == [A1]


def test_a_file_that_failed_waits_longer_each_time_and_its_key_with_it() -> None:
    schedule, pauses = Schedule(limit=9), []
    for _ in range(9):
        schedule.started(A1)
        pauses.append(schedule.postponed(A1.name, now=100).total_seconds())

    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert schedule.choose([A1, A2, B1], now=159) == [B1]
    assert schedule.choose([A1, A2, B1], now=160) == [A1, B1]

    schedule.ended(A1.name)
    schedule.started(A1)
    assert schedule.postponed(A1.name, now=0).total_seconds() == 0.5
