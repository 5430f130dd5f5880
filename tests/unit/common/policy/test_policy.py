"""What a policy lets run, and what its mistakes are called."""

import hashlib
from typing import Any

import pytest

from common.confinement import Confinement
from common.policy.model import ApprovalDemand, Effect, Refused, Ruling, Work
from common.policy.read import InvalidPolicy, Policy, parse_policy
from common.policy.rules import decide, explain

POLICY = """
version = 7

[[rule]]
name = "facts"
work_type = "shell_script"
parameters = { "argv.0" = ["uname", "df"] }
effect = "read"

[[rule]]
name = "deploy"
work_type = "shell_script"
agent_type = "infra"
labels = { stage = "prod" }
effect = "write"
allow = { executables = "/usr/bin/deploy-[a-z]+", environment = ["APP_NAME", "LD_PRELOAD"], files = ["/srv/app/**"] }
limits = { max_duration_seconds = 60, max_parameter_bytes = 400 }
confinement = { network_off = true }
approval = { approvers = 2, valid_minutes = 30 }
"""


def policy(text: str = POLICY) -> Policy:
    return parse_policy(text, source="policy.toml")


def deploy(**parameters: Any) -> Work:
    given = {"argv": ["/usr/bin/deploy-web"], "max_duration_seconds": 30, **parameters}
    return Work("shell_script", "infra", given, {"required_capabilities": {"stage": "prod"}})


def test_the_first_rule_that_matches_decides() -> None:
    assert decide(policy(), Work("shell_script", "infra", {"argv": ["df", "-h"]})) == Ruling(
        "facts", policy().id, Effect.READ
    )
    assert decide(policy(), deploy()) == Ruling(
        "deploy",
        policy().id,
        Effect.WRITE,
        ApprovalDemand(approvers=2, valid_minutes=30),
        Confinement(network_off=True),
    )


@pytest.mark.parametrize(
    ("rule", "matching", "another"),
    [
        ('work_type = "echo"', Work("echo", "infra"), Work("shell_script", "infra")),
        ('agent_type = "infra"', Work("echo", "infra"), Work("echo", "desktop")),
        (
            'labels = { stage = "prod" }',
            Work("echo", "infra", {}, {"required_capabilities": {"stage": "prod", "zone": "eu"}}),
            Work("echo", "infra", {}, {"required_capabilities": {"stage": "test"}}),
        ),
        (
            'labels = { stage = "prod" }',
            Work("echo", "infra", {}, {"required_capabilities": {"stage": "prod"}}),
            Work("echo", "infra", {}, {"preferred": {"stage": "prod"}}),
        ),
        ('parameters = { "message" = "hello" }', Work("echo", "infra", {"message": "hello"}), Work("echo", "infra")),
        (
            'parameters = { "env.STAGE" = "test" }',
            Work("own_type", "infra", {"env": {"STAGE": "test"}}),
            Work("own_type", "infra", {"env": {"STAGE": "prod"}}),
        ),
    ],
    ids=["work type", "pool", "another label", "a label that is only preferred", "no parameter", "another parameter"],
)
def test_each_condition_of_a_rule_counts_by_itself(rule: str, matching: Work, another: Work) -> None:
    only = policy(f'version = 1\n[[rule]]\nname = "it"\neffect = "read"\n{rule}\n')

    assert isinstance(decide(only, matching), Ruling)
    assert isinstance(decide(only, another), Refused)


def test_work_that_its_rule_refuses_is_not_let_run_by_a_later_one() -> None:
    free = '\n[[rule]]\nname = "anything"\neffect = "write"\n'

    answer = decide(policy(POLICY + free), deploy(argv=["/usr/bin/deploy-web-evil"]))

    assert isinstance(answer, Refused)
    assert answer.rule == "deploy"
    assert isinstance(decide(policy(POLICY + free), Work("echo", "infra")), Ruling)


@pytest.mark.parametrize(
    "work",
    [
        Work("echo", "infra"),
        Work("shell_script", "infra", {"argv": ["evil-df"]}),
        Work("shell_script", "infra", {"argv": ["df\n"]}),
        Work("shell_script", "desktop", deploy().parameters, deploy().hints),
        Work("shell_script", "infra", deploy().parameters),
    ],
)
def test_what_no_rule_matches_is_refused(work: Work) -> None:
    assert isinstance(decide(policy(), work), Refused)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"argv": ["/usr/bin/deploy-web-evil"]}, "the program"),
        ({"argv": ["x/usr/bin/deploy-web"]}, "the program"),
        ({"argv": None, "script": "true"}, "scripts are not allowed"),
        ({"env": {"OTHER": "x"}}, "OTHER"),
        ({"argv": ["/usr/bin/deploy-web", "/etc/shadow"]}, "/etc/shadow"),
        ({"argv": ["/usr/bin/deploy-web", "/srv/app/../../etc/shadow"]}, "/etc/shadow"),
        ({"argv": ["/usr/bin/deploy-web", "../etc"]}, "../etc"),
        ({"max_duration_seconds": 61}, "max_duration_seconds"),
        ({"max_duration_seconds": None}, "max_duration_seconds"),
        ({"stdin": "x" * 400}, "bytes"),
    ],
)
def test_what_the_rule_does_not_allow_is_refused_with_the_reason(parameters: dict[str, Any], reason: str) -> None:
    answer = decide(policy(), deploy(**parameters))

    assert isinstance(answer, Refused)
    assert answer.rule == "deploy"
    assert reason in answer.reason


@pytest.mark.parametrize(
    "parameters",
    [
        {"argv": ["/usr/bin/deploy-web", "/srv/app/x/y.conf"]},
        {"env": {"APP_NAME": "x", "LD_PRELOAD": "/srv/app/lib.so"}},
    ],
)
def test_what_the_rule_allows_runs(parameters: dict[str, Any]) -> None:
    assert isinstance(decide(policy(), deploy(**parameters)), Ruling)


def test_it_is_explained_up_to_the_rule_that_decides() -> None:
    first, second = explain(policy(), deploy())

    assert (first.rule, first.matches) == ("facts", False)
    assert "argv.0" in first.mismatches[0]
    assert (second.rule, second.matches, second.violations) == ("deploy", True, [])


def test_the_version_of_a_policy_is_its_number_and_the_digest_of_this_text() -> None:
    text = '{"rule":[{"effect":"read","name":"it"}],"version":7}'

    assert hashlib.sha256(text.encode()).hexdigest().startswith("7a287a4df381")
    assert policy('version = 7\n[[rule]]\nname = "it"\neffect = "read"\n').id == "7-7a287a4df381"


def test_the_version_names_what_the_rules_say() -> None:
    changed = policy(POLICY.replace("/srv/app/**", "/srv/**"))

    assert policy().id.startswith("7-")
    assert changed.id != policy().id
    assert policy(POLICY + "\n# a comment\n").id == policy().id


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('effect = "read"', 'effect = "maybe"'), "rule 'facts'.effect"),
        (("valid_minutes = 30", "valid_minutes = 4"), "rule 'deploy'.approval.valid_minutes"),
        (("approvers = 2", "approvers = 0"), "rule 'deploy'.approval.approvers"),
        (("approvers = 2", "approvers = 2, roles = []"), "rule 'deploy'.approval.roles"),
        (("labels =", "lables ="), "rule 'deploy'.lables"),
        (("deploy-[a-z]+", "deploy-[a-z"), "rule 'deploy'.allow.executables.0"),
        (
            ('"uname", "df"', '"uname", "(d)f\\\\1"'),
            "rule 'facts'.parameters.argv.0.1: Value error, is not a pattern that RE2",
        ),
        (("deploy-[a-z]+", "(?!evil)[a-z]+"), "back references, look-around and repetition beyond 1000 are not"),
        (("deploy-[a-z]+", "(.{1000}){2}"), "invalid repetition size"),
        (("deploy-[a-z]+", ".{1000}.{1000}.{1000}.{1000}"), "pattern too large"),
        (('"APP_NAME"', '"APP_[A-Z]+"'), "rule 'deploy'.allow.environment.0: Value error, 'APP_[A-Z]+' is no name"),
        (('"APP_NAME"', '"*"'), "rule 'deploy'"),
        (('["/srv/app/**"]', "[]"), "rule 'deploy'.allow.files: Value error, must have at least one"),
        (("/srv/app/**", "/srv/app**"), "must have '**' as a whole name only"),
        (("/srv/app/**", "srv/app"), "rule 'deploy'.allow.files.0: Value error, must be an absolute path"),
        (("/srv/app/**", "/srv/../app"), "must be an absolute path without"),
        (('name = "facts"', 'name = "deploy"'), "two rules have the name 'deploy'"),
        (("version = 7", ""), "version"),
        (("version = 7", f"version = {2**53}"), "version"),
        (('effect = "read"', f'effect = "read"\nlabels = {{ gpu = {2**53} }}'), "rule 'facts': "),
        (("version = 7", "version ="), "not TOML"),
        (("version = 7", f"version = {'7' * 5000}"), "not TOML"),
        (("version = 7", f"version = {'{a=' * 5000}"), "not TOML"),
    ],
)
def test_every_mistake_in_the_file_is_named(change: tuple[str, str], said: str) -> None:
    with pytest.raises(InvalidPolicy) as refused:
        policy(POLICY.replace(*change))

    assert said in str(refused.value)


@pytest.mark.parametrize("given", [True, 1, "true"])
def test_leaving_processes_behind_is_refused_also_where_a_rule_restricts_nothing_else(given: Any) -> None:
    free = policy('version = 1\n[[rule]]\nname = "anything"\neffect = "write"')
    named = policy('version = 1\n[[rule]]\nname = "daemons"\neffect = "write"\nallow = { leaves_processes = true }')
    work = Work("shell_script", "infra", {"argv": ["df"], "leaves_processes": given})

    refused = decide(free, work)

    assert isinstance(refused, Refused)
    assert "leaves_processes" in refused.reason
    assert isinstance(decide(named, work), Ruling)
    assert isinstance(decide(free, Work("shell_script", "infra", {"argv": ["df"], "leaves_processes": False})), Ruling)


def test_files_beside_a_program_are_refused_unless_the_rule_names_them_or_lets_anything_run() -> None:
    head = 'version = 1\n[[rule]]\nname = "make"\neffect = "write"\n'
    fenced = policy(f'{head}allow = {{ executables = "/usr/bin/make" }}')
    named = policy(f'{head}allow = {{ executables = "/usr/bin/make", receives_files = true }}')
    anything = policy(f'{head}allow = {{ environment = "*" }}')
    given = {"argv": ["/usr/bin/make"], "files": {"Makefile": {"text": "all:\n\tid\n"}}}
    work = Work("shell_script", "infra", given)

    refused = decide(fenced, work)

    assert isinstance(refused, Refused)
    assert "allow.receives_files" in refused.reason
    assert isinstance(decide(named, work), Ruling)
    assert isinstance(decide(anything, work), Ruling)
    assert isinstance(decide(fenced, Work("shell_script", "infra", {**given, "files": {}})), Ruling)
