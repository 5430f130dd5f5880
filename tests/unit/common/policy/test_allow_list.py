"""Work may do what its rule names, and nothing else."""

from typing import Any

import pytest

from common.policy.arguments import MOST_READINGS
from common.policy.model import Refused, Ruling, Work
from common.policy.read import InvalidPolicy, Policy, parse_policy
from common.policy.rules import decide
from tests.unit.common.policy.attacks import SPELLINGS, VARIABLES

ANYTHING = 'allow = { environment = "*" }'


def policy(rule: str) -> Policy:
    return parse_policy(f'version = 1\n[[rule]]\nname = "it"\neffect = "read"\n{rule}\n', source="policy.toml")


def asked(rule: str, work_type: str = "shell_script", **parameters: Any) -> Ruling | Refused:
    return decide(policy(rule), Work(work_type, "infra", parameters))


@pytest.mark.parametrize(
    "rule",
    [
        "",
        'parameters = { "argv.0" = "git" }',
        'allow = { executables = "git" }',
        "allow = { scripts = true }",
        'allow = { environment = ["LANG"] }',
    ],
)
def test_work_sets_no_variable_that_its_rule_does_not_name(rule: str) -> None:
    others = {"LANG": "C"} if "LANG" in rule else {}
    answers = {name: asked(rule, argv=["git", "status"], env=others | {name: "x"}) for name in VARIABLES}

    for name, answer in answers.items():
        assert isinstance(answer, Refused), name
        assert f"env sets {name!r}, which" in answer.reason


def test_a_variable_that_its_rule_names_is_set_also_a_dangerous_one() -> None:
    for name in VARIABLES:
        for rule in (f"allow = {{ environment = ['{name}'] }}", f'parameters = {{ "env.{name}" = "x|y" }}'):
            assert isinstance(asked(rule, argv=["git"], env={name: "x"}), Ruling), rule


@pytest.mark.parametrize(
    "name", ["PATH.*", "GIT_.*", ".*", "A|PATH", "APP_[A-Z]+", "A-B", "1A", "", "A\\n", "*A", "GIT*"]
)
def test_a_rule_names_variables_without_patterns(name: str) -> None:
    with pytest.raises(InvalidPolicy, match=r"rule 'it'\.allow\.environment\.0"):
        policy(f'allow = {{ environment = ["{name}"] }}')


@pytest.mark.parametrize("env", [["PATH=/tmp"], "PATH=/tmp", 1, [["PATH", "/tmp"]]])
def test_variables_of_another_form_are_refused(env: Any) -> None:
    assert isinstance(asked('allow = { environment = ["PATH"] }', "own_type", argv=["x"], env=env), Refused)


def test_a_long_list_of_variables_makes_no_long_message() -> None:
    answer = asked("", argv=["x"], env={f"V{number}" * 20: "x" for number in range(256)})

    assert isinstance(answer, Refused)
    assert "and 251 more" in answer.reason
    assert len(answer.reason) < 1000


def test_any_variable_is_set_where_anything_may_run_anyway() -> None:
    assert isinstance(asked(ANYTHING, argv=["x"], env=dict.fromkeys(VARIABLES, "x")), Ruling)


@pytest.mark.parametrize(
    "fence",
    [
        'allow = { environment = "*", executables = "git" }',
        'allow = { environment = "*", executables = "git", scripts = true }',
        'allow = { environment = "*", arguments = "status" }',
        'allow = { environment = "*", files = "/srv/**" }',
        'allow = { environment = "*", directories = "/srv" }',
        'allow = { environment = "*", scripts = false }',
        'allow = { environment = ["*", "PATH"] }',
        'parameters = { "argv.0" = "git" }\nallow = { environment = "*" }',
    ],
)
def test_any_variable_is_no_part_of_a_rule_that_restricts_what_runs(fence: str) -> None:
    with pytest.raises(InvalidPolicy, match=r"rule 'it'.*allow\.environment: \"\*\""):
        policy(fence)


@pytest.mark.parametrize("argument", SPELLINGS)
@pytest.mark.parametrize("place", ["argument", "directory"])
def test_a_path_beyond_the_files_is_refused_however_it_is_spelled(argument: str, place: str) -> None:
    given = {"argv": ["tar", argument]} if place == "argument" else {"argv": ["tar"], "cwd": argument}

    assert isinstance(asked('allow = { executables = "tar", files = ["/srv/app/**"] }', "own_type", **given), Refused)


@pytest.mark.parametrize(
    "argument",
    [
        "/srv/app/x",
        "//srv/app/x",
        "/srv//app/./x/",
        "/srv/app/x y.conf",
        "--file=/srv/app/x",
        "-f/srv/app/x",
        "@/srv/app/x",
        "file:///srv/app/x",
        "/srv/app/x:/srv/app/y,/srv/app/z",
        "/srv/app/x@v1",
        "--since=yesterday",
        "sub/folder/file.txt",
        "--exclude=sub/folder",
        "HEAD~1",
        "v1..v2",
        "feature/x..v2",
        "release 50%",
        "+%Y-%m-%d",
        "+%Y/%m/%d",
        "user@host",
        "a=b,c:d",
        "$x",
        "grüße",
        "",
    ],
)
def test_what_stays_within_the_files_or_is_no_path_passes(argument: str) -> None:
    assert isinstance(asked('allow = { executables = "tar", files = ["/srv/app/**"] }', argv=["tar", argument]), Ruling)


@pytest.mark.parametrize(
    ("glob", "path", "is_allowed"),
    [
        ("/srv/*.gz", "/srv/a.gz", True),
        ("/srv/*.gz", "/srv/a/b.gz", False),
        ("/srv/?.gz", "/srv/a.gz", True),
        ("/srv/?.gz", "/srv/ab.gz", False),
        ("/srv/?", "/srv/é", True),
        ("/srv/**/x", "/srv/a/b/x", True),
        ("/srv/**/x", "/srv/x", False),
        ("/srv/**", "/srv/a\nb", True),
        ("/srv/*", "/srv/a\nb", True),
        ("/srv/a.b", "/srv/axb", False),
        ("/srv/[ab]", "/srv/a", False),
        ("/srv/(a|b)*", "/srv/a", False),
        ("/**", "/etc/shadow", True),
    ],
)
def test_globs_go_name_by_name(glob: str, path: str, is_allowed: bool) -> None:
    answer = asked(f"allow = {{ files = ['{glob}'] }}", argv=["cat", path])

    assert isinstance(answer, Ruling) is is_allowed


@pytest.mark.parametrize(
    "parameters",
    [
        {"argv": ["/opt/tools/../../bin/sh"]},
        {"argv": ["/opt/tools//x"]},
        {"argv": ["/opt/tools/./x"]},
        {"argv": "/opt/tools/x"},
        {"argv": []},
        {"argv": [["/opt/tools/x"]]},
        {"argv": {"0": "/opt/tools/x"}},
        {"argv": ["/opt/tools/x"], "script": "id"},
        {"script": "id", "shell": "/opt/tools/x"},
        {"playbook": "site.yml"},
        {},
    ],
)
@pytest.mark.parametrize("files", ["", ', files = "/srv/**"'])
def test_a_rule_that_names_programs_refuses_what_may_be_another(parameters: dict[str, Any], files: str) -> None:
    rule = f'allow = {{ executables = "/opt/tools/.+"{files} }}'

    assert isinstance(asked(rule, argv=["/opt/tools/x"]), Ruling)
    assert isinstance(asked(rule, "own_type", **parameters), Refused)


def test_a_rule_that_demands_a_program_refuses_another_way_to_it() -> None:
    assert isinstance(asked('parameters = { "argv.0" = "/opt/.+" }', argv=["/opt/../bin/sh"]), Refused)
    assert isinstance(asked('parameters = { "shell" = "/opt/.+" }', script="id", shell="/opt/../bin/sh"), Refused)
    assert isinstance(asked('parameters = { "argv.0" = "/opt/.+" }', "own_type", argv=["/opt/x"], script="id"), Refused)


@pytest.mark.parametrize(
    "parameters",
    [{"shell": "/opt/tools/x"}, {"shell": ["/bin/sh"]}, {"shell": None}, {"argv": ["id"]}],
    ids=["another shell", "no text", "none", "a program"],
)
def test_a_rule_that_demands_a_script_refuses_another_reading_of_it(parameters: dict[str, Any]) -> None:
    rule = 'parameters = { "script" = "uname -a" }'

    assert isinstance(asked(rule, script="uname -a"), Ruling)
    assert isinstance(asked(rule, script="uname -a", shell="/bin/sh"), Ruling)
    assert isinstance(asked(rule, script="uname -a", **parameters), Refused)
    named = 'parameters = { "script" = "uname -a", "shell" = "/bin/bash" }'
    assert isinstance(asked(named, script="uname -a", shell="/bin/bash"), Ruling)


@pytest.mark.parametrize("restriction", ['executables = "/bin/.+"', 'arguments = "x"', 'files = "/srv/**"'])
def test_scripts_run_under_a_rule_with_restrictions_only_where_it_says_so(restriction: str) -> None:
    assert isinstance(asked(f"allow = {{ {restriction} }}", script="id"), Refused)
    assert isinstance(asked(f"allow = {{ {restriction}, scripts = true }}", script="id"), Ruling)


@pytest.mark.parametrize(
    ("argv", "is_allowed"),
    [
        (["git", "status"], True),
        (["git", "status", "--short"], True),
        (["git"], True),
        (["git", "-c", "core.fsmonitor=id", "status"], False),
        (["git", "status", "--short=x"], False),
    ],
)
def test_each_argument_is_one_that_the_rule_names(argv: list[str], is_allowed: bool) -> None:
    answer = asked('allow = { executables = "git", arguments = ["status", "--short"] }', argv=argv)

    assert isinstance(answer, Ruling) is is_allowed


@pytest.mark.parametrize("path", ["/srv/app/../../etc/shadow", "--file=/srv/app/..", "-f/srv/app/../x", ".."])
@pytest.mark.parametrize("rule", ["allow = { arguments = '.*' }", "parameters = { 'argv.1' = '.*' }"])
def test_a_pattern_for_arguments_lets_no_path_lead_up(rule: str, path: str) -> None:
    answer = asked(rule, argv=["cat", path])

    assert isinstance(answer, Refused)
    assert f"the argument {path!r} holds '..'" in answer.reason
    assert isinstance(asked(rule, argv=["cat", "/srv/app/x..y"]), Ruling)


@pytest.mark.parametrize("directory", ["/srv/app", "/srv/app/.", "/srv/app//", "/srv//app", "/srv/apple/x"])
def test_a_pattern_for_the_directory_is_compared_with_what_the_path_means(directory: str) -> None:
    rule = "allow = { directories = '/srv/app/.+' }"

    assert isinstance(asked(rule, "own_type", argv=["x"], cwd=directory), Refused)
    assert isinstance(asked(rule, "own_type", argv=["x"], cwd="/srv/app/./x"), Ruling)


@pytest.mark.parametrize("directory", [["/srv/app"], {"0": "/srv/app"}, 1])
def test_a_directory_that_is_no_text_is_refused(directory: Any) -> None:
    for rule in ("allow = { directories = '.*' }", "allow = { files = '/**' }"):
        assert isinstance(asked(rule, "own_type", argv=["x"], cwd=directory), Refused)


def test_a_path_with_spaces_and_commas_is_read_to_its_end_too() -> None:
    rule = 'allow = { executables = "cat", files = "/srv/*" }'

    assert isinstance(asked(rule, argv=["cat", "/srv/a,b c"]), Ruling)
    for argument in ("/srv/a b/c", "/srv/a,b/c", "--file=/srv/a b/c", "-f/srv/a:b/c"):
        assert isinstance(asked(rule, argv=["cat", argument]), Refused), argument


def test_arguments_that_can_be_read_as_too_many_paths_are_refused() -> None:
    rule = 'allow = { executables = "cat", files = "/srv/**" }'

    assert isinstance(asked(rule, argv=["cat", *["/srv/a"] * MOST_READINGS]), Ruling)
    answer = asked(rule, argv=["cat", *["/srv/a"] * (MOST_READINGS + 1)])

    assert isinstance(answer, Refused)
    assert "more than 1024 paths" in answer.reason


def test_a_pattern_for_the_directory_lets_no_path_lead_up() -> None:
    for rule in ("allow = { directories = '/srv/.*' }", "parameters = { cwd = '/srv/.*' }"):
        assert isinstance(asked(rule, "own_type", argv=["x"], cwd="/srv/../etc"), Refused)
        assert isinstance(asked(rule, "own_type", argv=["x"], cwd="/srv/app"), Ruling)


def test_a_text_that_cannot_be_encoded_matches_nothing() -> None:
    assert isinstance(asked('allow = { executables = "git", files = "/srv/**" }', argv=["git", "/srv/\ud800"]), Refused)
    assert isinstance(asked('parameters = { "argv.0" = ".*" }', argv=["\ud800"]), Refused)


def test_a_text_that_a_rule_demands_as_env_sets_no_variable() -> None:
    assert isinstance(asked('parameters = { env = "prod" }', "own_type", env="prod"), Ruling)
    assert isinstance(asked("", "own_type", env="prod"), Refused)
