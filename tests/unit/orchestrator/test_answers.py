"""What the REST API shows of a task's parameters."""

import json
import time

from common.policy.model import Refused
from common.policy.rules import Finding
from orchestrator.policy.answers import explained
from orchestrator.tasks.answers import LONGEST_IN_LIST, status_of, summary_of
from tests.test_orchestrator_api import make_task

TOKEN = "ghp_" + "a1B2c3D4e5" * 4


def test_a_token_that_begins_where_a_list_cuts_a_text_is_not_shown_in_part() -> None:
    task = make_task(parameters={"script": "x" * (LONGEST_IN_LIST - 12) + " " + TOKEN + " and more" * 50})

    shown = summary_of(task).parameters["script"]

    assert TOKEN[:8] not in shown
    assert shown.endswith("characters)")


def test_a_list_shows_the_first_of_many_arguments_and_how_many_there_are() -> None:
    shown = summary_of(make_task(parameters={"argv": [str(number) for number in range(100)]})).parameters["argv"]

    assert shown == [*map(str, range(20)), "… 80 more"]


def test_a_task_by_itself_is_shown_whole_but_for_what_looks_like_a_secret() -> None:
    parameters = {
        "argv": ["curl", "-H", f"authorization: Bearer {TOKEN}", "y" * 1000],
        "env": {"A": {"secret": "NAME"}},
    }

    shown = status_of(make_task(parameters=parameters), "").parameters

    assert TOKEN not in json.dumps(shown)
    assert shown["argv"][3] == "y" * 1000
    assert shown["env"] == {"A": {"secret": "NAME"}}


def test_two_hundred_of_the_largest_parameters_cost_a_list_little() -> None:
    task = make_task(parameters={"argv": ["z" * 500_000] * 1000})

    began = time.process_time()
    for _ in range(200):
        summary_of(task)

    assert time.process_time() - began < 2


def test_what_rules_say_of_work_does_not_grow_with_the_work() -> None:
    findings = [Finding(f"rule {number}", [f"the path {'x' * 10_000} is not under /srv"] * 1000) for number in range(5)]

    answer = explained(Refused("x" * 500_000, "1", "rule 0"), findings)

    assert len(answer.model_dump_json()) < 60_000
    assert [len(finding.mismatches) for finding in answer.findings] == [21] * 5
    assert answer.findings[0].mismatches[-1] == "… 980 more"
