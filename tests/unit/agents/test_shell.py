"""What a caller asks for in `shell_script` is what runs."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.base import Outcome, SecretUnavailable
from agents.executors.enclosure import OPEN, Enclosure, Sandbox
from agents.executors.environment import inherited
from agents.executors.shell import ShellExecutor
from agents.processes.keepers import Keepers
from common.confinement import Confinement
from common.errors import ErrorCode
from common.messages import ResultStatus
from tests.unit.agents.executing import IDS, Output, execute, make_context


async def secret(name: str) -> str:
    if name != "known":
        raise SecretUnavailable(name, "nobody knows it", may_come=name == "later")
    return "the value"


async def run(
    tmp_path: Path,
    *,
    env: Mapping[str, str] | None = None,
    stop: StopSignal | None = None,
    variables: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> tuple[Outcome, str]:
    """Return how the work ended and everything it wrote."""
    output = Output()
    with Keepers() as keepers:
        changes = {"secret": secret, **({} if env is None else {"inherited": env})}
        context = make_context(tmp_path, keepers, output, stop=stop or StopSignal(), **changes)
        outcome = await execute(ShellExecutor(), {**parameters, "env": variables or {}}, context)
    return outcome, output.text


async def test_arguments_reach_the_program_without_a_shell(tmp_path: Path) -> None:
    outcome, output = await run(tmp_path, argv=["printf", "%s|", "$HOME", "a b", ";", "*"])

    assert outcome == Outcome(ResultStatus.COMPLETED, exit_code=0)
    assert output == "$HOME|a b|;|*|"


async def test_a_script_is_run_by_the_shell_that_is_named_and_in_the_workspace(tmp_path: Path) -> None:
    _, output = await run(tmp_path, script='echo "${BASH_VERSION:+bash}"; pwd', shell="/bin/bash")

    assert output == f"bash\n{tmp_path}\n"


async def test_line_ends_of_a_script_are_not_touched(tmp_path: Path) -> None:
    _, output = await run(tmp_path, script="cat <<X\na\r\nb\nX")

    assert output == "a\r\nb\n"


async def test_standard_input_is_the_text_that_was_given(tmp_path: Path) -> None:
    _, output = await run(tmp_path, argv=["cat"], stdin="grüße\n")

    assert output == "grüße\n"


async def test_work_sees_the_allowed_variables_its_own_and_the_ids_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIFFON_BROKER_URL", "amqp://user:secret@host/")
    monkeypatch.setenv("ALLOWED", "yes")

    _, output = await run(tmp_path, env=inherited(["ALLOWED", "NOT_SET"]), argv=["/usr/bin/env"])

    assert dict(line.split("=", 1) for line in output.splitlines()) == {
        "ALLOWED": "yes",
        "TMPDIR": str(tmp_path / ".tmp"),
        **IDS,
    }


async def test_work_cannot_give_its_program_the_ids_of_another_attempt(tmp_path: Path) -> None:
    _, output = await run(tmp_path, variables=dict.fromkeys(IDS, "another"), argv=["/usr/bin/env"])

    assert IDS.items() <= dict(line.split("=", 1) for line in output.splitlines()).items()


async def test_a_program_that_does_not_exist_fails_for_good_with_127(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, argv=["no-such-program"])

    assert outcome == Outcome.failed("The program 'no-such-program' was not found.", exit_code=127)


# What bubblewrap does with the command: a name is looked up in the PATH that it was given for the program.
SANDBOX = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift
exec "$@"
"""


def program(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("is_sandboxed", [False, True])
async def test_a_name_is_looked_up_in_the_path_of_the_agent_and_never_in_that_of_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_sandboxed: bool
) -> None:
    program(tmp_path / "own" / "tool", "#!/bin/sh\necho own $0\n")
    for name in ("tool", "other"):  # `given` lies in the working directory, too
        program(tmp_path / "given" / name, "#!/bin/sh\necho given\n")
    monkeypatch.setenv("PATH", f":given:{tmp_path}/own:/usr/bin:/bin")
    bubblewrap = program(tmp_path / "bin" / "sandbox", SANDBOX)
    sandbox = Enclosure(Confinement(sandbox=True), sandbox=Sandbox(bubblewrap))
    variables = {"PATH": f"{tmp_path}/given:given:.:/usr/bin:/bin"}

    async def start(name: str) -> tuple[Outcome, str]:
        output = Output()
        with Keepers() as keepers:
            context = make_context(tmp_path, keepers, output, enclosure=sandbox if is_sandboxed else OPEN)
            return await execute(ShellExecutor(), {"argv": [name], "env": variables}, context), output.text

    assert await start("tool") == (Outcome(ResultStatus.COMPLETED, exit_code=0), f"own {tmp_path}/own/tool\n")
    assert await start("other") == (Outcome.failed("The program 'other' was not found.", exit_code=127), "")


@pytest.mark.parametrize(
    ("first_line", "reason"),
    [
        ("#!/no/such/interpreter -x\n", "the interpreter '/no/such/interpreter' of its first line is not on this host"),
        ("#!/bin/sh\r\n", "its first line, '#!/bin/sh\\r', ends with a carriage return"),
    ],
)
async def test_a_file_that_is_there_is_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_line: str, reason: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    program(tmp_path / "program", f"{first_line}echo hello\n")

    outcomes = [
        await run(tmp_path, argv=["./program"]),
        await run(tmp_path, argv=["program"]),
    ]

    for outcome, _ in outcomes:
        assert reason in str(outcome.error_message)
        assert "not found" not in str(outcome.error_message)
        assert outcome.exit_code == 126


async def test_too_long_a_run_is_a_timeout_with_its_own_message(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, script="sleep 60", max_duration_seconds=0.2)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.TIMEOUT)
    assert outcome.error_message == "The program was stopped: it ran longer than max_duration_seconds (0.2)."


async def test_too_long_a_silence_is_a_timeout_with_a_message_of_its_own(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, script="sleep 60", max_silence_seconds=0.2)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.TIMEOUT)
    assert outcome.error_message == (
        "The program was stopped: it wrote nothing for longer than max_silence_seconds (0.2)."
    )


async def test_the_signal_that_ended_a_program_is_named(tmp_path: Path) -> None:
    outcome, _ = await run(tmp_path, script="kill -SEGV $$")

    assert outcome.exit_code == 139
    assert outcome.error_message == "The program was ended by signal SIGSEGV."


async def test_a_stop_is_told_apart_from_a_failure(tmp_path: Path) -> None:
    stop = StopSignal()
    asyncio.get_running_loop().call_later(0.1, lambda: stop.order(StopReason.CANCELLED, grace=2.0))

    outcome, _ = await run(tmp_path, stop=stop, script="sleep 60")

    assert outcome.status is ResultStatus.CANCELLED


@pytest.mark.parametrize("parameters", [{}, {"script": "x", "argv": ["x"]}, {"script": "x", "typo": 1}])
async def test_parameters_that_make_no_sense_start_nothing(tmp_path: Path, parameters: dict[str, Any]) -> None:
    outcome, _ = await run(tmp_path, **parameters)

    assert (outcome.error_code, outcome.retryable) == (ErrorCode.INVALID_REQUEST, False)


async def test_a_reference_to_a_secret_becomes_its_value_for_the_program_alone(tmp_path: Path) -> None:
    reference = {"secret": "known"}
    _, output = await run(
        tmp_path, script='cat; printf " %s" "$TOKEN"', stdin=reference, variables={"TOKEN": reference}
    )

    assert output == "the value the value"


@pytest.mark.parametrize(
    ("name", "code", "retryable"), [("other", ErrorCode.SECRET_NOT_AVAILABLE, False), ("later", None, True)]
)
async def test_work_whose_secret_is_not_there_does_not_start(
    tmp_path: Path, name: str, code: ErrorCode | None, retryable: bool
) -> None:
    outcome, output = await run(tmp_path, script="echo started", stdin={"secret": name})

    assert (outcome.status, outcome.error_code, outcome.retryable) == (ResultStatus.FAILED, code, retryable)
    assert outcome.error_message == f"The secret '{name}' is not available: nobody knows it."
    assert output == ""
