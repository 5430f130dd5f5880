"""What an agent says of itself, within what was pinned when it was invited."""

from typing import Any

import pytest

from orchestrator.registry.model import Known
from orchestrator.registry.rules import believed_labels, contradiction

PINNED: dict[str, Any] = {"zone": "eu", "rack": 7, "trusted": True, "secrets": ["db", "mail"]}
ENROLLED = Known("infra", PINNED)


def test_an_agent_has_the_labels_that_were_pinned_whatever_it_says() -> None:
    assert believed_labels({"zone": "us", "rack": 8, "disk": "ssd"}, {"zone": "eu", "rack": 7}) == {
        "zone": "eu",
        "rack": 7,
        "disk": "ssd",
    }


@pytest.mark.parametrize(
    ("said", "has"),
    [
        (["db", "mail"], ["db", "mail"]),
        (["mail"], ["mail"]),
        ("mail", ["mail"]),
        (["db", "root"], ["db"]),
        (["root"], []),
        (None, []),
    ],
)
def test_of_a_list_that_was_pinned_an_agent_has_what_it_says_and_no_more(said: Any, has: list[str]) -> None:
    labels = {} if said is None else {"secrets": said}

    assert believed_labels(labels, {"secrets": ["db", "mail"]}) == {"secrets": has}


@pytest.mark.parametrize("label", ["enforces", "secrets"])
def test_a_label_that_permits_something_an_enrolled_agent_has_only_where_it_was_pinned(label: str) -> None:
    said = {label: ["all"], "zone": "eu"}

    assert believed_labels(said, {}) == {"zone": "eu"}
    assert believed_labels(said, None) == said, "an agent that nobody enrolled is believed"


@pytest.mark.parametrize("said", [{}, {"zone": "eu"}, {"rack": 7, "disk": "ssd"}, {"secrets": ["root"]}])
def test_what_fits_the_pinned_labels_is_no_contradiction(said: dict[str, Any]) -> None:
    assert contradiction("web-1", ENROLLED, agent_type="infra", labels=said) is None


@pytest.mark.parametrize(
    "said", [{"zone": "us"}, {"zone": ["eu"]}, {"rack": 8}, {"rack": 7.0}, {"rack": "7"}, {"trusted": 1}], ids=str
)
def test_another_value_or_another_type_of_a_pinned_label_is_a_contradiction(said: dict[str, Any]) -> None:
    [label] = said

    wrong = contradiction("web-1", ENROLLED, agent_type="infra", labels=said)

    assert wrong is not None
    assert wrong.startswith(f"the label {label} ")


def test_another_pool_than_that_of_the_identity_is_a_contradiction() -> None:
    wrong = contradiction("web-1", ENROLLED, agent_type="desktop")

    assert wrong == "agent web-1 belongs to the pool 'infra', and names the pool 'desktop'"
    assert contradiction("web-1", ENROLLED) is None
    assert contradiction("web-1", None, agent_type="desktop", labels={"zone": "us"}) is None
