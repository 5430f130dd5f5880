"""The seed decides what is repaired and killed, and everything that can happen does."""

from itertools import islice

from tests.chaos.runs.plan import COMES_TO, ROLLBACK, STEPS, Change, Moment, Victim, make_plan, points


def test_the_same_seed_makes_the_same_repairs() -> None:
    assert list(islice(make_plan(5), 50)) == list(islice(make_plan(5), 50))
    assert list(islice(make_plan(5), 50)) != list(islice(make_plan(6), 50))


def test_every_victim_is_killed_in_every_step_within_two_hundred_repairs() -> None:
    repairs = list(islice(make_plan(1), 200))
    killed = {(kill.victim, kill.point.step) for repair in repairs for kill in repair.kills}

    assert killed == {(victim, step) for victim in Victim for step in (*STEPS, ROLLBACK)}
    assert {kill.point.moment for repair in repairs for kill in repair.kills} == set(Moment)
    assert {(repair.change, repair.is_shown) for repair in repairs} == {
        (change, is_shown) for change in Change for is_shown in (False, True)
    }


def test_the_first_kill_is_where_its_change_comes_to_by_itself() -> None:
    for repair in islice(make_plan(2), 200):
        assert repair.kills[0].point in points(COMES_TO[repair.change], is_restarted=True)


def test_later_kills_are_in_later_steps_or_in_the_rollback_and_hit_other_processes() -> None:
    order = [*STEPS, ROLLBACK]
    for repair in islice(make_plan(3), 200):
        places = [order.index(kill.point.step) for kill in repair.kills]

        assert places == sorted(places)
        assert len({kill.victim for kill in repair.kills}) == len(places) <= 3
