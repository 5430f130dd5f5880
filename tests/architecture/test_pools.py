"""No statement gives a task to an agent without the pool that the ledger knows the agent by."""

import ast
import re

import pytest

from orchestrator.dispatch import queries as dispatch
from orchestrator.leases import queries as leases
from tests.architecture.source import Module, modules, walked
from tests.architecture.test_one_predicate import statements

# Statements that give a task to an agent; none of them is anywhere else than in a constant of a `queries` module.
LEASING = {
    "orchestrator.dispatch.queries.STORE",
    "orchestrator.dispatch.queries.STORE_FEW",
    "orchestrator.leases.queries.LEASE",
}
UPDATES = re.compile(r"UPDATE task\s+SET\s+(?P<changes>.*?)\b(?:FROM|WHERE)\b", re.DOTALL)
INSERTS = re.compile(r"INSERT INTO (?:task|attempt)\s*\((?P<columns>[^)]*)\)")
# The pool is read from the agent's row, which the statement locks and joins; a task goes to agents of its pool only.
OF_THE_POOL = (
    re.compile(r"agents AS MATERIALIZED \(\s*SELECT\b[^()]*\bagent_type\b[^()]*\b(?:FROM|JOIN) agent\b"),
    re.compile(r"\bJOIN (?:agents|credited) USING \(agent_id\)"),
    re.compile(r"\bagents\.agent_type = new\.agent_type\b|\btask\.agent_type = credited\.agent_type\b"),
)


def gives_a_task(statement: str) -> bool:
    """Return whether a statement sets the agent of a task, or makes an attempt."""
    return any(re.search(r"\bagent_id\s*=", found["changes"]) for found in UPDATES.finditer(statement)) or any(
        re.search(r"\bagent_id\b", found["columns"]) for found in INSERTS.finditer(statement)
    )


def joins_the_pool(statement: str) -> bool:
    return all(part.search(statement) for part in OF_THE_POOL)


def test_every_statement_that_gives_a_task_to_an_agent_joins_the_pool_of_that_agent() -> None:
    giving = {name: text for name, text in statements() if gives_a_task(text)}

    assert set(giving) == LEASING
    assert [name for name, text in giving.items() if not joins_the_pool(text)] == []


def test_no_other_module_gives_a_task_to_an_agent() -> None:
    giving = {module.path for module in modules("src") if any(map(gives_a_task, _texts(module)))}

    assert giving == {f"src/{name.rpartition('.')[0].replace('.', '/')}.py" for name in LEASING}


@pytest.mark.parametrize("statement", [dispatch.STORE, leases.LEASE], ids=["store", "lease"])
@pytest.mark.parametrize("part", OF_THE_POOL, ids=["agent", "join", "pool"])
def test_a_statement_without_the_join_is_noticed(part: re.Pattern[str], statement: str) -> None:
    without = part.sub("", statement)

    assert gives_a_task(without)
    assert not joins_the_pool(without)


def _texts(module: Module) -> list[str]:
    """Return the texts of a module, each that is put together of several as one."""
    texts: list[str] = []
    for node in walked(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else " x " for part in node.values))
    return texts
