"""What the pages about runs show: plans that can be run, services that can be read, commands that there are."""

import re
import shlex
from pathlib import Path

import pytest

from chiffon.cli.app import build_app
from common.plans.check import check
from common.plans.read import read_plan
from common.policy.read import parse_policy
from common.services import parse_services
from tests.architecture.source import ROOT

PAGES = [
    "docs/tutorial/repair-a-service.md",
    "docs/how-to/describe-services.md",
    "docs/how-to/approve-repairs.md",
    "docs/how-to/keep-and-pass-files.md",
    "docs/how-to/retry-a-run.md",
    "docs/how-to/write-a-plan.md",
]
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SERVICES = re.compile(r"<<'END'\n(?P<text>\[service\..*?)^END$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:^|\(|; )(?P<command>(?:[A-Z_]+=\S+ )*chiffon [^;|)>\n]*)", re.MULTILINE)
ID = "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"


def blocks(page: str, kind: str) -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return [match["text"] for match in BLOCK.finditer(text) if match["kind"] == kind]


TOML = [(page, text) for page in PAGES for text in blocks(page, "toml")]
PLANS = [text for _, text in TOML if "[[steps]]" in text]
COMMANDS = [
    (page, match["command"].strip()) for page in PAGES for text in blocks(page, "") for match in COMMAND.finditer(text)
]


@pytest.mark.parametrize("text", PLANS, ids=[text.partition("\n")[0] for text in PLANS])
def test_a_plan_of_a_page_can_be_run(text: str) -> None:
    plan = read_plan(text)

    check(plan)


def test_the_services_of_the_pages_can_be_read() -> None:
    shown = [text for _, text in TOML if "workspace" in text]
    shown += [match["text"] for match in SERVICES.finditer((ROOT / PAGES[0]).read_text(encoding="utf-8"))]

    assert [list(parse_services(text, source="page")) for text in shown] == [["web"], ["web"]]


def test_the_approval_that_the_tutorial_adds_fits_its_services() -> None:
    [services] = SERVICES.findall((ROOT / PAGES[0]).read_text(encoding="utf-8"))
    [approval] = blocks(PAGES[0], "toml")

    assert parse_services(services + approval, source="page")["web"].requirement == "pre-verify"


def test_the_rule_of_a_page_is_a_policy() -> None:
    [rule] = [text for _, text in TOML if "[[rule]]" in text]

    assert [one.name for one in parse_policy(rule, source="page").rule] == ["repairs"]


def test_the_pages_show_plans_and_commands() -> None:
    assert len(PLANS) == 5
    assert {page for page, _ in COMMANDS} == set(PAGES)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[command for _, command in COMMANDS])
def test_a_command_of_a_page_can_be_parsed(page: str, command: str) -> None:
    words = [word for word in shlex.split(command, comments=True) if not re.fullmatch(r"[A-Z_]+=\S+", word)]
    words = [ID if word.startswith("$") else word for word in words[1:]]

    build_app(words).parse_args(words, print_error=False, exit_on_error=False)


def test_the_tutorial_has_no_output_that_nobody_saw() -> None:
    assert not [page for page in PAGES if "OUTPUT-" in Path(ROOT / page).read_text(encoding="utf-8")]
