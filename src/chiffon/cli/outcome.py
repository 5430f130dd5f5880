"""Exit statuses: what a script can tell from them, and the message that goes with each failure."""

import os
import sys
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, assert_never

from cyclopts import CycloptsError

from chiffon.cli.console import say
from common.errors import ChiffonError, Conflict, ErrorCode, Invalid, NotFound, StartupRefused
from common.lifecycle import Status
from common.plans.status import RunStatus


class Exit(IntEnum):
    """The exit statuses of `chiffon`; those from 10 on are the outcome of the work that was waited for."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 5
    UNREACHABLE = 6
    WORK_FAILED = 10
    WORK_CANCELLED = 11
    WORK_TIMED_OUT = 12
    WORK_ROLLED_BACK = 13
    INTERRUPTED = 130


class Usage(Exception):
    """The command line cannot be understood; the message says why."""


def exit_of_work(status: Status, error_code: int | None) -> Exit:
    """Return the exit status for the outcome of a task."""
    match status:
        case Status.COMPLETED:
            return Exit.OK
        case Status.CANCELLED:
            return Exit.WORK_CANCELLED
        case Status.FAILED:
            return Exit.WORK_TIMED_OUT if error_code == ErrorCode.TIMEOUT else Exit.WORK_FAILED
        case Status.PENDING | Status.RUNNING | Status.AWAITING_APPROVAL:
            return Exit.ERROR
        case _:
            assert_never(status)


def exit_of_run(status: str) -> Exit:
    """Return the exit status for the outcome of a run."""
    match status:
        case RunStatus.SUCCEEDED:
            return Exit.OK
        case RunStatus.FAILED:
            return Exit.WORK_FAILED
        case RunStatus.ROLLED_BACK:
            return Exit.WORK_ROLLED_BACK
        case RunStatus.CANCELLED:
            return Exit.WORK_CANCELLED
        case _:
            return Exit.ERROR


def exit_of_answer(http_status: int, error_code: int | None) -> Exit:
    """Return the exit status for an error that the orchestrator answered."""
    if http_status == 404:
        return Exit.NOT_FOUND
    if http_status == 409 or error_code == ErrorCode.INVALID_STATE:
        return Exit.CONFLICT
    if error_code in (ErrorCode.UNKNOWN_WORK_TYPE, ErrorCode.INVALID_REQUEST, ErrorCode.SERVICE_UNKNOWN):
        return Exit.USAGE
    return Exit.ERROR


def explain_failure(failure: Exception, arguments: Sequence[str] = ()) -> Exit | None:
    """Print why a command line failed and return its exit status; None for a failure that is a fault of the program."""
    from chiffon.errors import ApiError, ServerUnreachable

    match failure:
        case ExceptionGroup():
            return explain_failure(failure.exceptions[0], arguments)
        case ApiError():
            code = "" if failure.error_code is None else f" [{failure.error_code}]"
            message, problems = _said_once(failure.error_message, failure.problems)
            say(f"chiffon: {message}{code}", *(f"  {problem}" for problem in problems))
            return exit_of_answer(failure.status, failure.error_code)
        case ServerUnreachable():
            say(f"chiffon: {failure}")
            say("Is it running? Start one with `chiffon up`, or name another with --server or CHIFFON_SERVER.")
            return Exit.UNREACHABLE
        case StartupRefused():
            _say_of_this_host(failure)
            return Exit.ERROR
        case Usage() | Invalid() | CycloptsError():
            say(f"chiffon: {_not_text(arguments) or failure}")
            return Exit.USAGE
        case ChiffonError():
            _say_of_this_host(failure)
            return _exit_of_refusal(failure)
        case OSError():
            say(f"chiffon: {_of_the_system(failure)}")
            return Exit.ERROR
        case UnicodeError():
            argument = _not_text(arguments)
            say(f"chiffon: {argument or f'this is not text that can be read: {failure}'}")
            return Exit.ERROR if argument is None else Exit.USAGE
        case _:
            return None


def _said_once(message: str, problems: Sequence[Mapping[str, Any]]) -> tuple[str, Sequence[str]]:
    """Return the message of an answer, and its problems where the message does not say all of them already."""
    lines = [f"{problem.get('field', '?')}: {problem.get('message', '')}" for problem in problems]
    if not lines or not message.startswith(lines[0]):
        return message, lines
    return (message, []) if len(lines) == 1 else (f"{len(lines)} fields are not usable", lines)


def _say_of_this_host(failure: object) -> None:
    """Print what went wrong on this host; the end of a log may follow the first line, indented."""
    first, *rest = str(failure).split("\n")
    say(f"chiffon: {first}", *(f"  {line}".rstrip() for line in rest))


def _exit_of_refusal(refusal: ChiffonError) -> Exit:
    if isinstance(refusal, NotFound):
        return Exit.NOT_FOUND
    return Exit.CONFLICT if isinstance(refusal, Conflict) else Exit.ERROR


def _of_the_system(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def _not_text(arguments: Sequence[str]) -> str | None:
    """Name the first argument that is not text; None when all are."""
    for number, argument in enumerate(arguments, start=1):
        # Python keeps bytes that are no text as lone surrogates (PEP 383).
        if not is_text(argument):
            return f"argument {number} is not {sys.getfilesystemencoding()} text: {os.fsencode(argument)!r}"
    return None


def is_text(argument: str) -> bool:
    """Say whether an argument can be sent on as text."""
    return not any(0xD800 <= ord(one) <= 0xDFFF for one in argument)
