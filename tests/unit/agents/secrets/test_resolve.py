"""A secret is looked up where the settings say, and its value is known from then on."""

from pathlib import Path
from typing import Any

import pytest

from agents.attempts.stopping import StopSignal
from agents.executors.base import SecretUnavailable
from agents.processes.keepers import Keepers
from agents.secrets.model import SecretSource
from agents.secrets.resolve import Secrets, SecretUnusable
from agents.settings import AgentSettings
from common.config import InvalidSettings
from common.redaction.text import redacted
from common.redaction.values import MOST_PASSING, Values


def make_secrets(known: Values | None = None, keepers: Keepers | None = None, **source: Any) -> Secrets:
    given = {"name": SecretSource.model_validate(source)}
    return Secrets(
        given, Values() if known is None else known, keepers or Keepers(), inherited={"PATH": "/usr/bin:/bin"}
    )


async def value_of(secrets: Secrets, *, name: str = "name", work_type: str = "shell_script") -> str:
    return await secrets.value(name, work_type=work_type, stop=StopSignal(), started=lambda _pid: None)


async def test_a_variable_a_file_and_a_command_give_a_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keepers: Keepers
) -> None:
    monkeypatch.setenv("GIVEN", "from the environment")
    (tmp_path / "file").write_text("from a file\n")

    assert await value_of(make_secrets(env="GIVEN")) == "from the environment"
    assert await value_of(make_secrets(file=str(tmp_path / "file"))) == "from a file"
    assert await value_of(make_secrets(keepers=keepers, command=["echo", "from a command"])) == "from a command"


async def test_a_command_gets_the_variables_that_work_inherits_and_no_others(
    monkeypatch: pytest.MonkeyPatch, keepers: Keepers
) -> None:
    monkeypatch.setenv("PASSWORD_OF_ANOTHER", "correct horse")
    command = ["sh", "-c", 'echo "${PASSWORD_OF_ANOTHER-nothing}, $PATH"']

    assert await value_of(make_secrets(keepers=keepers, command=command)) == "nothing, /usr/bin:/bin"


async def test_what_a_command_complains_of_is_no_part_of_the_secret(keepers: Keepers) -> None:
    command = ["sh", "-c", "echo beware >&2; echo the value"]

    assert await value_of(make_secrets(keepers=keepers, command=command)) == "the value"


async def test_a_file_that_changes_gives_its_new_value_and_both_are_hidden(tmp_path: Path) -> None:
    known, file = Values(), tmp_path / "file"
    secrets = make_secrets(known, file=str(file))
    for value in ("first value", "second value"):
        file.write_text(value)
        assert await value_of(secrets) == value

    assert redacted("first value, second value", known) == "[redacted], [redacted]"


async def test_values_that_are_here_at_the_start_are_hidden_before_anybody_asks(tmp_path: Path) -> None:
    known = Values()
    (tmp_path / "file").write_text("in the file")

    await make_secrets(known, file=str(tmp_path / "file")).read_now()

    assert redacted("in the file", known) == "[redacted]"


async def test_a_value_of_the_settings_stays_hidden_however_many_values_commands_make(tmp_path: Path) -> None:
    known = Values()
    (tmp_path / "file").write_text("in the file")
    await make_secrets(known, file=str(tmp_path / "file")).read_now()

    known.hide(*(f"value-{number:04}" for number in range(MOST_PASSING + 1)))

    assert redacted("in the file", known) == "[redacted]"


async def test_a_value_too_short_to_be_hidden_is_refused_at_the_start_and_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIVEN", "short")

    with pytest.raises(SecretUnusable, match="fewer than 6 characters"):
        await make_secrets(env="GIVEN").read_now()
    with pytest.raises(SecretUnavailable, match="fewer than 6 characters"):
        await value_of(make_secrets(env="GIVEN"))


async def test_a_secret_that_is_not_there_yet_does_not_stop_the_agent() -> None:
    await make_secrets(env="NOT_THERE_AT_ALL").read_now()

    with pytest.raises(SecretUnavailable, match="no variable NOT_THERE_AT_ALL"):
        await value_of(make_secrets(env="NOT_THERE_AT_ALL"))


async def test_only_the_work_types_that_are_named_may_use_a_secret(keepers: Keepers) -> None:
    secrets = make_secrets(keepers=keepers, command=["echo", "a value"], work_types=["echo"])

    assert await value_of(secrets, work_type="echo") == "a value"
    with pytest.raises(SecretUnavailable, match="'shell_script' may not use it"):
        await value_of(secrets)


async def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(SecretUnavailable, match="'other' is not available: this agent has no secret"):
        await value_of(make_secrets(env="HOME"), name="other")


async def test_a_command_that_fails_may_succeed_later_and_its_output_is_not_told(keepers: Keepers) -> None:
    with pytest.raises(SecretUnavailable) as failure:
        await value_of(make_secrets(keepers=keepers, command=["sh", "-c", "echo half a secret; echo more >&2; exit 3"]))

    assert failure.value.may_come
    assert str(failure.value) == (
        "The secret 'name' is not available: its command was not successful (exited, exit code 3)."
    )


@pytest.mark.parametrize("content", [b"\xff\xfe\xff\xfe\xff\xfe", b"with\0NUL in it", b"x" * 70_000])
async def test_what_is_no_text_of_a_reasonable_size_is_no_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)

    with pytest.raises(SecretUnavailable):
        await value_of(make_secrets(file=str(tmp_path / "file")))


@pytest.mark.parametrize("source", [{}, {"env": "A", "file": "/b"}, {"command": []}, "the value itself"])
def test_a_source_that_is_none_is_refused_without_repeating_it(source: Any) -> None:
    with pytest.raises(InvalidSettings) as failure:
        AgentSettings.load(secrets={"name": source})

    assert "the value itself" not in str(failure.value)


def test_the_names_of_secrets_are_announced_and_nobody_else_may_use_that_label() -> None:
    settings = AgentSettings.load(labels={"gpu": True}, secrets={"b": {"env": "B"}, "a": {"env": "A"}})

    assert settings.announced_labels == {"gpu": True, "secrets": ["a", "b"]}
    with pytest.raises(InvalidSettings, match="announces secrets itself"):
        AgentSettings.load(labels={"secrets": ["a"]})
