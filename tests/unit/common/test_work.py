"""What may be asked of a work type."""

from typing import Any

import pytest
from pydantic import ValidationError

from common.json_rules import MAX_DEPTH, check_json
from common.work import (
    PARAMETERS,
    AnsibleParameters,
    EchoParameters,
    Parameters,
    SecretReference,
    ShellScriptParameters,
)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "exactly one"),
        ({"argv": ["a"], "script": "b"}, "exactly one"),
        ({"argv": []}, "at least 1"),
        ({"argv": ["a\x00"]}, "NUL"),
        ({"script": "\ud800"}, "surrogate|unicode"),
        ({"script": "x", "env": {"1A": "x"}}, "1A"),
        ({"script": "x", "env": {"A=B": "x"}}, "A=B"),
        ({"argv": ["x", {"secret": "a"}]}, "everybody on the host can see arguments"),
        ({"script": "x", "env": {"A": {"secret": "no name"}}}, "env.A"),
        ({"script": "x", "stdin": {"secret": "a", "more": 1}}, "stdin"),
        ({"script": "x", "max_duration_seconds": 0}, "greater than 0"),
        ({"script": "x", "max_duration_seconds": float("nan")}, "finite"),
        ({"script": "x", "max_duration": 5}, "Extra inputs"),
    ],
    ids=str,
)
def test_parameters_that_are_not_allowed_are_refused_with_the_reason(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        ShellScriptParameters.model_validate(parameters)


def problems_of(model: type[Parameters], name: str, value: object) -> list[str]:
    """Return what is wrong with one field, whatever else is missing."""
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        return [problem["type"] for problem in error.errors() if problem["loc"] == (name,)]
    return []


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param(model, name, id=f"{work_type}.{name}")
        for work_type, model in PARAMETERS.items()
        for name, field in model.model_fields.items()
        if field.annotation is bool
    ],
)
def test_a_truth_value_is_true_or_false_and_nothing_that_looks_like_it(model: type[Parameters], name: str) -> None:
    assert [problems_of(model, name, value) for value in ("on", "true", 1, 0.0)] == [["bool_type"]] * 4
    assert problems_of(model, name, True) == problems_of(model, name, False) == []


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({}, "playbook"),
        ({"playbook": "/etc/site.yml"}, "relative, and without"),
        ({"playbook": "a/../../site.yml"}, "relative, and without"),
        ({"playbook": "../a,b.yml"}, "relative, and without"),
        ({"playbook": "a.yml", "inventory": "/etc/hosts"}, "relative, and without"),
        ({"playbook": "a.yml", "inventory": "web1,-x"}, "'-x' is no name or address of a host"),
        ({"playbook": "a.yml", "inventory": "web1,/etc/passwd"}, "'/etc/passwd' is no name"),
        ({"playbook": "a.yml", "limit": "@/etc/passwd"}, "names a file"),
        ({"playbook": "a.yml", "limit": "web1,@/etc/passwd"}, "names a file"),
        ({"playbook": "a.yml", "tags": ["a,b"]}, "one tag"),
        ({"playbook": "a.yml", "tags": "a"}, "list"),
        ({"playbook": "a.yml", "extra_vars": {"a-b": 1}}, "'a-b'"),
        ({"playbook": "a.yml", "extra_vars": {"ansible_ssh_common_args": "x"}}, "belong to inventories"),
        ({"playbook": "a.yml", "extra_vars": {"_ansible_ansiballz_pydevd_config": {}}}, "belong to inventories"),
        ({"playbook": "a.yml", "extra_vars": {"inventory_hostname": "-oProxyCommand=x"}}, "Ansible itself"),
        ({"playbook": "a.yml", "extra_vars": {"inventory_hostname": {"secret": "db"}}}, "Ansible itself"),
        ({"playbook": "a.yml", "extra_vars": {"db": {"secret": "no name"}}}, "extra_vars.db.secret"),
        ({"playbook": "a.yml", "extra_vars": {"a": "\x00"}}, "NUL"),
        ({"playbook": "a.yml", "check": "yes"}, "boolean"),
        ({"playbook": "a.yml", "forks": 5}, "Extra inputs"),
    ],
    ids=str,
)
def test_a_playbook_is_refused_with_the_reason(parameters: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        AnsibleParameters.model_validate(parameters)


def test_a_variable_is_a_value_or_stands_for_a_secret() -> None:
    given = {"a": {"secret": "db"}, "b": {"secret": "db", "more": 1}, "c": [1, {"d": None}], "e": "{{ x }}"}

    parameters = AnsibleParameters.model_validate({"playbook": "a.yml", "extra_vars": given})

    assert parameters.extra_vars == {**given, "a": SecretReference(secret="db")}
    assert parameters.model_dump(exclude_defaults=True) == {"playbook": "a.yml", "extra_vars": given}


@pytest.mark.parametrize("inventory", ["hosts", "prod/hosts.yml", "web1,", "web1,10.0.0.1,[2001:db8::1]:22,h[1:9]"])
def test_an_inventory_is_a_path_or_a_list_of_hosts(inventory: str) -> None:
    assert AnsibleParameters.model_validate({"playbook": "a.yml", "inventory": inventory}).inventory == inventory


def test_an_echo_has_a_message() -> None:
    assert EchoParameters.model_validate({"message": "hi"}).message == "hi"
    with pytest.raises(ValidationError):
        EchoParameters.model_validate({"mesage": "hi"})


def test_json_may_be_nested_up_to_the_limit_and_no_deeper() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert check_json(value) == value

    with pytest.raises(ValueError, match="nested"):
        check_json([value])
