"""What work may say of its files, and that it changes nothing about work that says nothing of them."""

from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from agents.attempts.workspace import PROGRESS_FOLDER
from agents.executors.ansible import PLUGIN
from agents.executors.enclosure import TEMPORARY
from common.canonical import canonical_json, work_digest
from common.work import (
    MOST_FILES,
    SUMMARY_PLUGIN,
    WORKSPACE_FOLDERS,
    AnsibleParameters,
    FileReference,
    ShellScriptParameters,
    WithFiles,
    content_of,
)

TASK = str(UUID(int=1))
DIGEST = "0" * 64


def digest(work_type: str, parameters: dict[str, Any]) -> str:
    content = content_of(work_type, parameters)
    target, version = "infra", "1-abc"
    return work_digest(work_type=work_type, parameters=content, hints={}, target=target, policy_version=version).hex()


@pytest.mark.parametrize(
    ("work_type", "parameters", "expected"),
    [
        (
            "shell_script",
            # As it was stored before there were files: with all defaults of then.
            {
                "argv": ["df", "-h"],
                "script": None,
                "shell": "/bin/sh",
                "env": {"LANG": "C"},
                "stdin": "",
                "max_duration_seconds": 60,
                "max_silence_seconds": None,
                "leaves_processes": False,
            },
            # sha256sum of {"hints":{},"parameters":{"argv":["df","-h"],"env":{"LANG":"C"},"max_duration_seconds":60},
            # "policy_version":"1-abc","target":"infra","work_type":"shell_script"}
            "204f2e2271dea55d57c4bd08f2562340c4197200c8f9930160c3bdd9c8e02ff5",
        ),
        (
            "ansible",
            {"playbook": "site.yml", "limit": "web", "inventory": None, "tags": [], "extra_vars": {}, "check": False},
            # sha256sum of {"hints":{},"parameters":{"limit":"web","playbook":"site.yml"},"policy_version":"1-abc",
            # "target":"infra","work_type":"ansible"}
            "eca328bc9fd0c8eacb174c3c114ef1a09d64602e9dfe9c1a6e00ca3567c7e38f",
        ),
        (
            "shell_script",
            {
                "argv": ["make"],
                "cwd": "src",
                "artifacts": ["dist/*.whl"],
                "files": {"src/Makefile": {"text": "all:"}, "src/a.csv": {"task": TASK, "artifact": "a.csv"}},
            },
            # sha256sum of {"hints":{},"parameters":{"argv":["make"],"artifacts":["dist/*.whl"],"cwd":"src","files":
            # {"src/Makefile":{"text":"all:"},"src/a.csv":{"artifact":"a.csv","task":"…1"}}},"policy_version":"1-abc",
            # "target":"infra","work_type":"shell_script"}
            "fb7b35fa41e1103c9cb8a1d93bf37a9bf6d7e4dd04582271b92aacf1c78e29bd",
        ),
    ],
    ids=["shell_script", "ansible", "with files"],
)
def test_the_digest_of_stored_work_stays_what_it_was(work_type: str, parameters: dict[str, Any], expected: str) -> None:
    assert digest(work_type, parameters) == expected


@pytest.mark.parametrize(
    "spelled_out", [{"files": {}}, {"artifacts": []}, {"cwd": None}, {"files": {}, "artifacts": [], "cwd": None}]
)
def test_no_files_spelled_out_are_no_files(spelled_out: dict[str, Any]) -> None:
    assert digest("shell_script", {"argv": ["df"], **spelled_out}) == digest("shell_script", {"argv": ["df"]})


def test_what_work_says_of_its_files_is_part_of_what_is_approved() -> None:
    given: list[dict[str, Any]] = [
        {},
        {"cwd": "src"},
        {"artifacts": ["a"]},
        {"files": {"a": {"text": ""}}},
        {"files": {"a": {"text": "x"}}},
        {"files": {"b": {"text": "x"}}},
        {"files": {"a": {"upload": DIGEST}}},
        {"files": {"a": {"task": TASK, "artifact": "a"}}},
    ]

    assert len({digest("shell_script", {"argv": ["df"], **one}) for one in given}) == len(given)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"artifacts": ["/etc/passwd"]}, "relative path"),
        ({"artifacts": ["../x"]}, "relative path"),
        ({"artifacts": ["dist/../../x"]}, "relative path"),
        ({"artifacts": ["dist/./x"]}, "relative path"),
        ({"artifacts": ["dist//x"]}, "relative path"),
        ({"artifacts": ["dist/"]}, "relative path"),
        ({"artifacts": [""]}, "at least 1"),
        ({"artifacts": ["a\\b"]}, "backslash"),
        ({"artifacts": ["a\nb"]}, "control"),
        ({"artifacts": ["a\x00b"]}, "control"),
        ({"artifacts": ["\ud800"]}, "surrogate|unicode"),
        ({"artifacts": ["dist/**.whl"]}, "part of the path by itself"),
        ({"artifacts": ["a" * 1025]}, "at most 1024"),
        ({"artifacts": ["a"] * (MOST_FILES + 1)}, f"at most {MOST_FILES}"),
        ({"artifacts": "dist/*"}, "list"),
        ({"files": {"/etc/passwd": {"text": ""}}}, "relative path"),
        ({"files": {"../x": {"text": ""}}}, "relative path"),
        ({"files": {"a/../../x": {"text": ""}}}, "relative path"),
        ({"files": {"": {"text": ""}}}, "1 to 255 bytes"),
        ({"files": {"ä" * 128: {"text": ""}}}, "1 to 255 bytes"),
        ({"files": {"a\\b": {"text": ""}}}, "backslash"),
        ({"files": {"a\nb": {"text": ""}}}, "control"),
        ({"files": {".tmp/x": {"text": ""}}}, "agent itself uses '.tmp'"),
        ({"files": {".progress": {"text": ""}}}, "agent itself uses '.progress'"),
        ({"files": {"a": {"text": ""}, "a/b/c": {"text": ""}}}, "'a' is a file, too"),
        ({"files": {f"{number}": {"text": ""} for number in range(MOST_FILES + 1)}}, f"at most {MOST_FILES}"),
        ({"files": {"a": {}}}, "exactly one of"),
        ({"files": {"a": {"text": "", "upload": DIGEST}}}, "exactly one of"),
        ({"files": {"a": {"task": TASK}}}, "exactly one of"),
        ({"files": {"a": {"artifact": "b"}}}, "exactly one of"),
        ({"files": {"a": {"text": "", "artifact": "b"}}}, "exactly one of"),
        ({"files": {"a": {"upload": DIGEST, "task": TASK, "artifact": "b"}}}, "exactly one of"),
        ({"files": {"a": {"upload": "0" * 63}}}, "pattern"),
        ({"files": {"a": {"upload": "A" * 64}}}, "pattern"),
        ({"files": {"a": {"task": "no-id", "artifact": "b"}}}, "the id of a task"),
        ({"files": {"a": {"task": TASK, "artifact": "../b"}}}, "relative path"),
        ({"files": {"a": {"text": "\x00"}}}, "NUL"),
        ({"files": {"a": {"text": "x" * 262_145}}}, "at most 262144"),
        ({"files": {"a": {"file": "/etc/passwd"}}}, "Extra inputs"),
        ({"files": {"a": "text"}}, "dictionary|instance"),
        ({"cwd": ""}, "at least 1"),
        ({"cwd": ".."}, "must not contain '..'"),
        ({"cwd": "a/../.."}, "must not contain '..'"),
        ({"cwd": "/srv/../etc"}, "must not contain '..'"),
        ({"cwd": "a\x00b"}, "NUL"),
    ],
    ids=str,
)
def test_what_work_says_wrongly_of_its_files_is_refused_with_the_reason(
    parameters: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValidationError, match=problem):
        ShellScriptParameters.model_validate({"argv": ["true"], **parameters})


def test_no_file_takes_the_place_of_the_script() -> None:
    files = {"script": {"text": ""}}

    assert ShellScriptParameters.model_validate({"argv": ["true"], "files": files}).files.keys() == {"script"}
    for name in ("script", "script/x"):
        with pytest.raises(ValidationError, match="that is the script itself"):
            ShellScriptParameters.model_validate({"script": "true", "files": {name: {"text": ""}}})
        with pytest.raises(ValidationError, match="that is the script itself"):
            ShellScriptParameters.model_validate({"script": "true", "cwd": f"./{name}"})


@pytest.mark.parametrize("name", ["chiffon_summary.json", "chiffon_extra_vars.yml", "ansible_summary.py"])
def test_no_file_takes_the_place_of_what_a_playbook_needs(name: str) -> None:
    with pytest.raises(ValidationError, match=f"agent itself uses '{name}'"):
        AnsibleParameters.model_validate({"playbook": "a.yml", "files": {name: {"text": ""}}})


def test_the_names_that_an_agent_uses_are_those_that_are_refused() -> None:
    assert {PROGRESS_FOLDER, TEMPORARY} == WORKSPACE_FOLDERS
    assert PLUGIN.name == SUMMARY_PLUGIN
    assert PLUGIN.is_file()
    assert WithFiles.own_names == ShellScriptParameters.own_names == WORKSPACE_FOLDERS


def test_the_id_of_a_task_is_written_in_one_way() -> None:
    written = "{AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA}"

    reference = FileReference.model_validate({"task": written, "artifact": "a"})

    assert reference.task == "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
    assert canonical_json(reference.model_dump(exclude_defaults=True)).decode() == (
        '{"artifact":"a","task":"aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"}'
    )
