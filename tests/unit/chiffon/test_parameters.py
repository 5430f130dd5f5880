"""How the words of a command line become parameters."""

import io
from pathlib import Path

import pytest

from chiffon.cli.outcome import Usage
from chiffon.cli.parameters import collect_parameters, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hello", "hello"),
        ("5", 5),
        ("true", True),
        ('["uname","-a"]', ["uname", "-a"]),
        ('{"LANG":"C"}', {"LANG": "C"}),
        ('"5"', "5"),
        ("", ""),
        ("{not json", "{not json"),
    ],
)
def test_a_value_is_json_when_it_is_json_and_text_otherwise(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_a_value_may_hold_the_separator() -> None:
    assert collect_parameters("echo", pairs=["message=a=b"]) == {"message": "a=b"}


def test_the_program_after_the_dashes_is_argv() -> None:
    assert collect_parameters("shell_script", argv=["df", "-h"], max_duration=5) == {
        "argv": ["df", "-h"],
        "max_duration_seconds": 5,
    }


def test_a_script_is_read_from_its_file(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("echo hi\n", encoding="utf-8")

    assert collect_parameters("shell_script", script=str(script)) == {"script": "echo hi\n"}


@pytest.mark.parametrize("given", ["pairs", "file"])
def test_a_shell_that_is_given_runs_the_script_whatever_its_first_line_says(tmp_path: Path, given: str) -> None:
    script, file = tmp_path / "job.sh", tmp_path / "params.json"
    script.write_text("#!/bin/bash -e\n", encoding="utf-8")
    file.write_text('{"shell": "bash"}', encoding="utf-8")

    with pytest.raises(Usage, match="--param shell=PROGRAM"):
        collect_parameters("shell_script", script=str(script))
    parameters = collect_parameters(
        "shell_script",
        script=str(script),
        pairs=["shell=bash"] if given == "pairs" else [],
        params_file=str(file) if given == "file" else None,
    )

    assert parameters == {"script": "#!/bin/bash -e\n", "shell": "bash"}


def test_a_single_parameter_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"message": "old", "other": 1}'))

    assert collect_parameters("echo", params_file="-", pairs=["message=new"]) == {"message": "new", "other": 1}


@pytest.mark.parametrize(
    ("work_type", "given", "reason"),
    [
        ("shell_script", {"pairs": ["novalue"]}, "KEY=VALUE"),
        ("shell_script", {"argv": ["ls"], "script": "-"}, "not both"),
        ("echo", {"argv": ["ls"]}, "only shell_script"),
        ("echo", {"params_file": "/nowhere/at/all"}, "cannot read"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_reason(
    work_type: str, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(Usage, match=reason):
        collect_parameters(work_type, **given)  # type: ignore[arg-type]
