"""What the reference pages say that the code says already: tables and diagrams in Markdown, made from the code."""

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from rich.console import Console

from chiffon.cli.app import COMMANDS, build_app
from chiffon.conformance.cases import CASES
from common.broker import topology
from common.broker.base import Queue
from common.config import Settings
from common.errors import ErrorCode
from common.lifecycle import FINAL, TRANSITIONS, Status
from common.messages import AgentStatus, ResultStatus, StepStatus, Stream
from orchestrator.http.errors import STATUS_OF
from tests.openapi import DOCUMENT

Schema = Mapping[str, Any]

NOTHING = "—"

ENUMS: Mapping[str, Iterable[str]] = {
    "Status": Status,
    "AgentStatus": AgentStatus,
    "Stream": Stream,
    "ResultStatus": ResultStatus,
    "StepStatus": StepStatus,
}

MEANINGS: Mapping[str, str] = {
    "unknown_work_type": "No route leads from the work type to a type of agent.",
    "invalid_request": "A part of the request is not usable; `errors` names the fields.",
    "idempotency_conflict": "The `task_id` or `request_id` was used before, for other content.",
    "task_not_found": "No task has this id.",
    "invalid_state": "It does not fit how things stand: a task that has ended cannot be cancelled, one that has not "
    "cannot be run again; a dead letter is settled, or cannot be replayed.",
    "agent_not_found": "No agent has this id.",
    "dead_letter_not_found": "No dead letter has this id.",
    "run_not_found": "No run has this id.",
    "run_not_possible": "The run does not stand so that this can be done: it has ended, has not, or waits for nobody.",
    "artifact_not_found": "No artifact has this id, or its content is not there; the message says why.",
    "service_unknown": "The services file has no such service.",
    "artifact_too_large": "The file is larger than what is kept, or the store is full.",
    "lease_lost": "The job is not that worker's, or not any longer, or cannot make that move. Nothing was changed.",
    "policy_refused": "No rule of the policy lets this work run; the message names the rule that came closest.",
    "approval_not_found": "No approval has this id.",
    "approval_not_possible": "The approval is decided, has run out, or is not for this person to decide.",
    "approval_mismatch": "The approval is not the caller's, not of this work on these terms, or holds no longer.",
    "approval_denied": "People rejected the work, did not answer in time, or it did not begin in time after their yes.",
    "confinement_not_possible": "The agent's host cannot shut the work in as its rule demands.",
    "unauthenticated": "The request carries no token, or one that is not known, has run out or was revoked.",
    "identity_not_found": "No identity or token has this name or id.",
    "forbidden": "Whoever asks is known, and may not do this.",
    "enrolment_refused": "The enrolment token is not known, has been used, or has run out.",
    "too_many_requests": "Too many requests with one token, or from one address; `Retry-After` says when to come back.",
    "timeout": "The work ran longer than `max_duration_seconds`, or was silent for `max_silence_seconds`.",
    "agent_unavailable": "The agent was lost, stopped, or lost its lease before the work had ended.",
    "invalid_message": "A message is not an envelope of this protocol.",
    "authentication_failed": "The agent did not run this: its orchestrator has not signed it for this agent, now.",
    "resource_limit": "The agent's host could not run the work: no space, no permission, too many files.",
    "secret_not_available": "The work refers to a secret that the agent's host does not have, or does not give to it.",
    "unsupported_work_type": "The agent has no executor for the work type.",
    "not_found": "There is no such endpoint.",
    "unavailable": "The database or the broker cannot be reached right now; try again.",
    "internal": "A fault of the orchestrator or of an executor; the log has the trace.",
}

# Defaults that depend on where the process runs.
DEFAULTS = {"name": "the host's name", "state_dir": "`chiffon/agent-<type>` in the XDG state directory"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; a last column that says nothing is left out."""
    rows = list(rows)
    if all(row[-1] == NOTHING for row in rows):
        head, rows = head[:-1], [row[:-1] for row in rows]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings(model: type[Settings]) -> str:
    """Return every setting of one kind of process."""
    prefix = model.model_config["env_prefix"]
    properties = model.model_json_schema(by_alias=False)["properties"]
    where = "" if model.table is None else f"[{model.table}] "
    rows = [
        (
            f"`{prefix}{name}`".upper(),
            f"`{where}{name}`",
            DEFAULTS.get(name) or f"`{_plain(field.get_default(call_default_factory=True))}`",
            _type(properties[name]),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]
    return table(("environment", "TOML", "default", "allowed", "meaning"), rows)


def fields(model: type[BaseModel]) -> str:
    """Return every field of a model."""
    return _fields(model.model_json_schema(), {name: field.default for name, field in model.model_fields.items()})


def lifecycle() -> str:
    """Return the life cycle as a diagram."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> pending: dispatch"]
    lines += [f"    {before} --> {after}: {change}" for (before, change), after in TRANSITIONS.items()]
    lines += [f"    {status} --> [*]" for status in sorted(FINAL)]
    return "\n".join([*lines, "```"])


def error_codes() -> str:
    """Return every error code with its HTTP status; those of the protocol are never an answer over HTTP."""
    if untold := {code.name.lower() for code in ErrorCode} - set(MEANINGS):
        raise ValueError(f"say in MEANINGS ({__name__}) what these codes mean: {sorted(untold)}")
    rows = [
        (
            str(code.value),
            code.name.lower(),
            NOTHING if 5000 <= code < 6000 else str(STATUS_OF.get(code, HTTPStatus.INTERNAL_SERVER_ERROR).value),
            MEANINGS[code.name.lower()],
        )
        for code in sorted(ErrorCode)
    ]
    return table(("code", "name", "HTTP", "meaning"), rows)


def queues() -> str:
    """Return every queue, its exchange and its binding."""
    known: Sequence[tuple[str, Queue]] = [
        ("work.<agent_type>.<agent_id>", topology.work_queue("TYPE", _ID)),
        ("control.<agent_id>", topology.control_queue(_ID)),
        *((queue.name, queue) for queue in topology.REPLY_QUEUES),
        (topology.DEAD_LETTERS, topology.DEAD_LETTER_QUEUE),
    ]
    rows = [
        (
            f"`{name}`",
            f"`{address.exchange.name}`",
            str(address.exchange.type),
            f"`{_key(name, address.routing_key)}`" if address.routing_key else "any",
            "yes" if queue.has_priorities else "no",
        )
        for name, queue in known
        for address in queue.bindings
    ]
    return table(("queue", "exchange", "type", "routing key", "priorities"), rows)


def endpoints() -> str:
    """Return every REST endpoint with the statuses that it documents."""
    rows = [
        (f"`{method.upper()} {path}`", what["summary"], ", ".join(sorted(what["responses"])))
        for path, methods in DOCUMENT["paths"].items()
        for method, what in methods.items()
    ]
    return table(("endpoint", "what it does", "answers"), rows)


def query(path: str) -> str:
    """Return the query parameters of a GET endpoint."""
    parameters = [one for one in DOCUMENT["paths"][path]["get"]["parameters"] if one["in"] == "query"]
    rows = [
        (
            f"`{one['name']}`",
            _type(one["schema"]),
            _default(one["schema"].get("default")),
            one.get("description", NOTHING),
        )
        for one in parameters
    ]
    return table(("parameter", "type", "default", "meaning"), rows)


def body(name: str) -> str:
    """Return the fields of a body that the API documents."""
    return _fields(DOCUMENT["components"]["schemas"][name], {})


def commands() -> str:
    """Return the list of commands."""
    return table(("command", "what it does"), [(f"`chiffon {name}`", one.summary) for name, one in COMMANDS.items()])


def cases() -> str:
    """Return the cases of the conformance kit."""
    return table(("case", "the worker"), [(f"`{case.name}`", case.promise) for case in CASES])


def command_help(*names: str) -> str:
    """Return what a command says about itself with --help."""
    shown = Console(file=io.StringIO(), width=100, color_system=None, force_terminal=False, legacy_windows=False)
    build_app(names).help_print(list(names), console=shown)
    assert isinstance(shown.file, io.StringIO)
    lines = [line.rstrip() for line in shown.file.getvalue().strip().splitlines()]
    return "\n".join(["```text", *lines, "```"])


_ID = UUID("00000000-0000-0000-0000-000000000000")


def _key(name: str, routing_key: str) -> str:
    return name if routing_key in {f"work.TYPE.{_ID}", f"control.{_ID}"} else routing_key


def _fields(schema: Schema, defaults: Mapping[str, Any]) -> str:
    required = set(schema.get("required", ()))
    rows = [
        (
            f"`{name}`",
            _type(one),
            "required" if name in required else _default(one.get("default", defaults.get(name))),
            one.get("description", NOTHING),
        )
        for name, one in schema["properties"].items()
    ]
    return table(("field", "type", "default", "meaning"), rows)


def _default(value: Any) -> str:
    return NOTHING if value is None or value is PydanticUndefined else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, default=str)


def _type(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "oneOf" in schema:
        return " or ".join(_type(one) for one in schema["oneOf"])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        values = ENUMS.get(name) or DOCUMENT["components"]["schemas"].get(name, {}).get("enum", ())
        return ", ".join(f"`{value}`" for value in values) or name
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "date-time":
        return "time"
    kind = str(schema.get("format") or schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_type(schema['items'])}"
    return kind + _limits(schema)


def _limits(schema: Schema) -> str:
    limits = [
        f"{words} {schema[key]:g}" if isinstance(schema[key], float) else f"{words} {schema[key]}"
        for key, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to"),
            ("minLength", "at least"),
            ("maxLength", "at most"),
            ("minItems", "at least"),
            ("maxItems", "at most"),
        )
        if key in schema
    ]
    if "pattern" in schema:
        limits.append(f"matches `{schema['pattern']}`")
    return f", {' '.join(limits)}" if limits else ""
