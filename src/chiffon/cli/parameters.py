"""Turn the words of a command line into a task's parameters."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chiffon.cli.outcome import Usage
from common.json_text import NameTwice, NotJson, read_json


def read_text(source: str) -> str:
    """Return the text of a file, with the line ends of Unix and without a byte order mark; `-` is standard input."""
    try:
        if source == "-":
            return sys.stdin.read().removeprefix("\ufeff")
        return Path(source).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise Usage(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Usage(f"{source} is not UTF-8 text") from error


def parse_value(text: str) -> Any:
    """Return what a JSON text means; a text that is not JSON means itself."""
    try:
        return read_json(text)
    except NameTwice as error:
        raise Usage(f"{text}: {error}") from None
    except NotJson:
        return text


def parse_pair(pair: str, option: str = "--param") -> tuple[str, Any]:
    """Split `KEY=VALUE`."""
    key, separator, value = pair.partition("=")
    if not separator or not key:
        raise Usage(f"{option} wants KEY=VALUE, not {pair!r}")
    return key, parse_value(value)


def collect_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Return labels given as `NAME=VALUE`; raises `Usage`."""
    for pair in pairs:
        if "=" not in pair[1:]:
            raise Usage(f"a label is NAME=VALUE, not {pair!r}")
    return _dict(pairs)


def collect_texts(pairs: Sequence[str]) -> dict[str, str]:
    """Return labels given as `NAME=VALUE`, whose values are texts as they stand; raises `Usage`."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise Usage(f"a label is NAME=VALUE, not {pair!r}")
        if name in found:
            raise Usage(f"{name} is given twice")
        found[name] = value
    return found


def collect_inputs(pairs: Sequence[str], inputs_file: str | None, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs of a plan; what is given as `NAME=VALUE` wins over the file. Raises `Usage`.

    An input whose default is a text stays one, also where it could be read as a number: `version=1.1`.
    """
    given = _dict(pairs, "--input")
    for pair in pairs:
        name, _, text = pair.partition("=")
        if isinstance(defaults.get(name), str):
            given[name] = text
    return ({} if inputs_file is None else _read_object(inputs_file)) | given


def _dict(pairs: Sequence[str], option: str = "--param") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in (parse_pair(pair, option) for pair in pairs):
        if key in found:
            raise Usage(f"{key} is given twice")
        found[key] = value
    return found


def collect_parameters(
    work_type: str,
    *,
    pairs: Sequence[str] = (),
    params_file: str | None = None,
    script: str | None = None,
    argv: Sequence[str] = (),
    max_duration: float | None = None,
) -> dict[str, Any]:
    """Return the parameters that all these together give; what stands later in the signature wins.

    Raises `Usage` for what cannot be understood, and for `argv` and `script` where the work type has no use for them.
    """
    parameters = {} if params_file is None else _read_object(params_file)
    parameters.update(_dict(pairs))
    if (argv or script is not None) and work_type != "shell_script":
        raise Usage(f"only shell_script takes a program or --script; give {work_type} its parameters with --param")
    if argv and script is not None:
        raise Usage("give either --script or a program after --, not both")
    if script is not None:
        text = parameters["script"] = read_text(script)
        if text.startswith("#!") and "shell" not in parameters:
            parameters["shell"] = _interpreter(script, text)
    if argv:
        parameters["argv"] = list(argv)
    if max_duration is not None:
        parameters["max_duration_seconds"] = max_duration
    return parameters


def _interpreter(source: str, text: str) -> str:
    """Return the program that the first line of a script names; the agent gives the script to it."""
    words = text.partition("\n")[0].removeprefix("#!").split()
    if len(words) == 2 and words[0].endswith("/env") and not words[1].startswith("-"):
        return words[1]
    if len(words) != 1:
        raise Usage(
            f"{source} names its interpreter with options: {' '.join(words)}; a script is given to one program "
            "without options: name it with --param shell=PROGRAM"
        )
    return words[0]


def _read_object(source: str) -> dict[str, Any]:
    try:
        found = read_json(read_text(source))
    except NotJson as error:
        raise Usage(f"{source}: {error}") from error
    if not isinstance(found, dict):
        raise Usage(f"{source} must hold a JSON object")
    return found
