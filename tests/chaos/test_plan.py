"""The seed decides what happens, and everything that can happen does."""

import random

from tests.chaos.faults import FAULTS
from tests.chaos.plan import Settings, kinds, make_plan


def test_the_same_seed_makes_the_same_faults() -> None:
    assert make_plan(5, 600, Settings()) == make_plan(5, 600, Settings())
    assert make_plan(5, 600, Settings()) != make_plan(6, 600, Settings())


def test_every_kind_of_fault_comes_up_before_any_comes_up_again() -> None:
    known = set(kinds(Settings()))
    for seed in random.Random(1).sample(range(1000), 20):
        plan = make_plan(seed, 1200, Settings())

        assert {fault.kind for fault in plan} == known


def test_every_kind_of_fault_can_be_made() -> None:
    assert set(FAULTS) == set(kinds(Settings()))


def test_faults_on_one_target_do_not_overlap() -> None:
    plan = make_plan(3, 1800, Settings())

    for target in {fault.target for fault in plan}:
        ends = 0.0
        for fault in plan:
            if fault.target == target:
                assert fault.at >= ends
                ends = fault.at + fault.duration
