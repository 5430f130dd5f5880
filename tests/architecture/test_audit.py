"""Whatever changes the ledger writes an event in the same transaction, or it stands here why not.

What a coroutine calls is known by name only, so one whose name is also that of a writer is not looked at.
"""

import ast
from collections.abc import Iterator

from tests.architecture.source import ROOT

SOURCE = ROOT / "src" / "orchestrator"

WITHOUT = {
    "ops/service.py snapshot": "reads only",
    "approvals/service.py get": "reads only",
    "jobs/service.py heartbeat": "keeps a lease, which changes nothing that anybody decided",
    "keys/service.py free_overdue": "lets go what was to go anyway; the claim is the event",
    "loops/relay_outbox.py _take": "publishes what was dispatched; the claim is the event",
    "loops/recover.py _give_tickets": "publishes what was dispatched; the claim is the event",
}


def coroutines() -> Iterator[tuple[str, ast.AsyncFunctionDef]]:
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AsyncFunctionDef):
                yield f"{path.relative_to(SOURCE)} {node.name}", node


def called(function: ast.AsyncFunctionDef) -> set[str]:
    """Return the names of what a coroutine calls; `events.append` with its module."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            names.add(text if text == "events.append" else text.rsplit(".", 1)[-1])
    return names


def writers() -> set[str]:
    """Return the names of the coroutines that write events, themselves or through others."""
    calls = {name.split(" ")[1]: set[str]() for name, _ in coroutines()}
    for name, function in coroutines():
        calls[name.split(" ")[1]] |= called(function)
    found = {"events.append"}
    while more := {name for name, names in calls.items() if names & found} - found:
        found |= more
    return found


def test_every_transaction_writes_an_event_or_says_why_not() -> None:
    telling = writers()
    silent = {
        name
        for name, function in coroutines()
        if "transaction" in called(function)
        and name != "database/pool.py transaction"
        and not called(function) & telling
    }

    assert silent == set(WITHOUT)
