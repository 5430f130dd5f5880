"""The policies that people copy, from the repository and from the pages, withstand what was tried against them."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from common.policy.model import Refused, Ruling, Work
from common.policy.read import Policy, parse_policy
from common.policy.rules import decide
from orchestrator.policy.service import open_policy
from tests.architecture.source import ROOT
from tests.unit.common.policy.attacks import SPELLINGS, VARIABLES

HOW_TO = ROOT / "docs" / "how-to" / "write-a-policy.md"
SERVICES = ROOT / "docs" / "how-to" / "describe-services.md"
REFERENCE = ROOT / "docs" / "reference" / "policy.md"
BLOCK = re.compile(r"```toml\n(.*?)```", re.DOTALL)

# Something that each rule lets run.
ORDINARY: list[dict[str, Any]] = [
    {"argv": ["df", "-h"], "max_duration_seconds": 30},
    {"argv": ["/usr/local/bin/deploy-web", "/srv/app/x"], "max_duration_seconds": 30},
    {"argv": ["/usr/bin/git", "-C", "/srv/app", "status"]},
]


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


SHIPPED = {"example": (ROOT / "policy.example.toml").read_text(encoding="utf-8")} | {
    f"how-to-{number}": text for number, text in enumerate(blocks(HOW_TO), 1)
}


@pytest.fixture(params=SHIPPED)
def policy(request: pytest.FixtureRequest) -> Policy:
    return parse_policy(SHIPPED[request.param], source=request.param)


def let_run(policy: Policy) -> list[dict[str, Any]]:
    """Return what the policy lets run of what is ordinary."""
    return [work for work in ORDINARY if isinstance(asked(policy, work), Ruling)]


def asked(policy: Policy, parameters: dict[str, Any], **more: Any) -> Ruling | Refused:
    return decide(policy, Work("shell_script", "infra", parameters | more))


def test_something_runs_by_each_rule_so_that_the_attacks_meet_all_of_them(policy: Policy) -> None:
    met = {asked(policy, work).rule for work in let_run(policy)}

    assert met == {rule.name for rule in policy.rule if rule.name != "echo"}


def test_no_variable_changes_what_runs(policy: Policy) -> None:
    for work in let_run(policy):
        for name in VARIABLES:
            assert isinstance(asked(policy, work, env={name: "/tmp/evil"}), Refused), name


def test_the_linker_writes_no_file_and_no_other_path_is_searched(policy: Policy) -> None:
    for work in let_run(policy):
        attack = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": "/etc/cron.d/x", "LD_LIBRARY_PATH": "\n* * * * * root id\n"}
        assert isinstance(asked(policy, work, env=attack), Refused)
        assert isinstance(asked(policy, work, env={"PATH": "/srv/evil"}), Refused)


def test_no_argument_leads_to_another_file_where_a_rule_names_files_or_arguments(policy: Policy) -> None:
    fenced = {rule.name for rule in policy.rule if rule.allow.files is not None or rule.allow.arguments is not None}
    for work in let_run(policy):
        for spelling in SPELLINGS if asked(policy, work).rule in fenced else ():
            attack = {**work, "argv": [*work["argv"], spelling]}
            allows = policy.rule[-1].allow.arguments
            assert isinstance(asked(policy, attack), Refused) or (allows is not None and spelling in allows.texts)


def test_no_script_runs_and_no_program_by_another_way(policy: Policy) -> None:
    for work in let_run(policy):
        without = {name: value for name, value in work.items() if name != "argv"}
        assert isinstance(asked(policy, without, script="id"), Refused)
        assert isinstance(asked(policy, without, script="id", shell=work["argv"][0]), Refused)
        assert isinstance(asked(policy, without, argv=[f"/srv/evil/{work['argv'][0]}"]), Refused)
        assert isinstance(asked(policy, without, argv=[f"/usr/local/bin/../../{work['argv'][0]}"]), Refused)


def test_the_page_shows_the_policy_that_is_built_in() -> None:
    [shown] = blocks(REFERENCE)

    assert parse_policy(shown, source="page").id == open_policy(None).policy.id


def test_the_page_about_services_lets_their_repairs_run_and_nothing_else() -> None:
    [text] = [block for block in blocks(SERVICES) if "[[rule]]" in block]
    policy = parse_policy(text, source="page")

    assert isinstance(decide(policy, Work("compose_repair", "infra", {})), Ruling)
    assert all(isinstance(asked(policy, work), Refused) for work in ORDINARY)


def test_without_a_policy_any_work_runs_with_any_variables() -> None:
    built_in = open_policy(None).policy

    assert all(isinstance(asked(built_in, work, env=dict.fromkeys(VARIABLES, "x")), Ruling) for work in ORDINARY)
    assert isinstance(asked(built_in, {"script": "id", "env": {"PGPASSWORD": {"secret": "db"}}}), Ruling)
    assert isinstance(decide(built_in, Work("ansible", "infra", {"playbook": "site.yml"})), Ruling)


def test_every_page_with_a_policy_is_among_those_that_are_tested() -> None:
    pages = {page for page in (ROOT / "docs").rglob("*.md") if any("[[rule]]" in block for block in blocks(page))}

    assert pages == {HOW_TO, SERVICES, REFERENCE}
    assert all("rule" in tomllib.loads(text) for text in SHIPPED.values())
