"""What the REST API shows of a task's parameters."""

import json
import time

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
