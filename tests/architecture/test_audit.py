"""Whatever changes the ledger writes an event in the same transaction, or it stands here why not.

What a coroutine calls is known by name only, so one whose name is also that of a writer is not looked at.
"""

import ast
from collections.abc import Iterator
from functools import cache

from orchestrator.events import queries as events
from orchestrator.leases import queries as leases
from tests.architecture.source import dotted_name, modules, walked

SOURCE = "src/orchestrator/"

WITHOUT = {
    "ops/service.py snapshot": "reads only",
    "approvals/service.py get": "reads only",
    "repairs/queries.py newest": "reads only",
    "runs/queries.py newest": "reads only",
    "runs/service.py get": "reads only",
    "jobs/service.py heartbeat": "keeps a lease, which changes nothing that anybody decided",
    "jobs/claims.py _held": "reads only",
    "keys/service.py free_overdue": "lets go what was to go anyway; the claim is the event",
    "leases/service.py settle": "sends leases once more that their agents did not hear of; the claim is the event",
}
# `queries.lease` writes the events in the statement that leases.
TELLING = {"events.append", "queries.lease"}


def coroutines() -> Iterator[tuple[str, ast.AsyncFunctionDef]]:
    for module in modules("src"):
        if module.path.startswith(SOURCE):
            for node in walked(module.tree):
                if isinstance(node, ast.AsyncFunctionDef):
                    yield f"{module.path.removeprefix(SOURCE)} {node.name}", node


@cache
def called(function: ast.AsyncFunctionDef) -> frozenset[str]:
    """Return the names of what a coroutine calls; those that tell, with their module."""
    names = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            text = dotted_name(node.func)
            names.add(text if text in TELLING else text.rsplit(".", 1)[-1])
    return frozenset(names)


def writers() -> set[str]:
    """Return the names of the coroutines that write events, themselves or through others."""
    calls = {name.split(" ")[1]: set[str]() for name, _ in coroutines()}
    for name, function in coroutines():
        calls[name.split(" ")[1]] |= called(function)
    found = set(TELLING)
    while more := {name for name, names in calls.items() if names & found} - found:
        found |= more
    return found


def test_the_statement_that_leases_writes_the_events() -> None:
    assert events.WRITE in leases.LEASE


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
