"""There is one way to an executor: through a gate. A test of the imports and of every call in the source."""

import ast

from tests.architecture.source import Module, called_names, dotted_name, imported_names, modules, walked

GATES = ("src/agents/gate/write_gate.py", "src/chiffon/in_process/gate.py")
# Where an agent and the in-process worker are; nobody else can have an executor (`test_only_...` below).
NEAR = ("src/agents/", "src/chiffon/in_process/")
# `execute` of sqlite3
STARTS_SQL = tuple(f"src/chiffon/in_process/{name}.py" for name in ("store", "queries", "schema_queries"))

# What only these may import; with the executors themselves, which may know each other.
KNOWS_THE_EXECUTORS = {
    "agents.executors.registry": {"src/agents/main.py", "src/chiffon/in_process/gate.py"},
    # The public face of executors.
    "agents.executors.programs": {"src/chiffon/executors.py"},
    "agents.executors.permitted": {*GATES},
    # These ask the host's own tools, and the commands that its settings name; no work has a say in what they run.
    "agents.executors.process": {"src/agents/executors/gpus.py", "src/agents/secrets/resolve.py"},
}
HARMLESS = {
    "agents.executors.base",
    "agents.executors.enforcement",
    "agents.executors.environment",
    "agents.executors.gpus",
}
# Here `execute` checks the parameters before `carry_out`, and an outcome is changed.
BASE = "src/agents/executors/base.py"


def test_only_a_gate_starts_an_executor() -> None:
    strays = [
        module.at(node, "calls or hands out .execute")
        for module in _near()
        if module.path not in (*GATES, *STARTS_SQL)
        for node in walked(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == "execute" and not _is_passage(module, node)
    ]

    assert not strays, "\n".join(strays)


def test_only_an_executor_itself_carries_out_its_work() -> None:
    strays = [
        module.at(node, "calls or hands out .carry_out")
        for module in modules("src")
        if module.path != BASE
        for node in walked(module.tree)
        if isinstance(node, ast.Attribute) and node.attr == "carry_out"
    ]

    assert not strays, "\n".join(strays)


def test_only_a_gate_makes_permitted_work() -> None:
    makers = {
        module.path
        for module in modules("src")
        for _, name in called_names(module.tree)
        if name.split(".")[-1] == "Permitted"
    }
    replaced = [
        module.at(call, f"calls {name}")
        for module in _near()
        if module.path != BASE
        if any(imported == "agents.executors.permitted" for _, imported in imported_names(module.tree))
        for call, name in called_names(module.tree)
        if name in ("replace", "dataclasses.replace", "copy", "copy.copy", "copy.replace", "object.__new__")
    ]

    assert makers == {*GATES}
    assert not replaced, "\n".join(replaced)


def test_only_the_places_that_build_a_gate_know_the_executors() -> None:
    strays = [
        module.at(node, f"imports {name}")
        for module in modules("src")
        if not module.path.startswith("src/agents/executors/")
        for node, name in imported_names(module.tree)
        if name in KNOWS_THE_EXECUTORS or (name.startswith("agents.executors.") and name not in HARMLESS)
        if module.path not in KNOWS_THE_EXECUTORS.get(name, set())
    ]

    assert not strays, "\n".join(strays)


def test_a_gate_checks_before_it_lets_anything_through() -> None:
    [gate] = [module for module in modules("src") if module.path == GATES[0]]
    functions = [node for node in ast.walk(gate.tree) if isinstance(node, ast.FunctionDef)]
    [admit] = [function for function in functions if function.name == "admit"]
    calls = called_names(ast.Module([admit], []))
    called = [name for _, name in sorted(calls, key=lambda call: (call[0].lineno, call[0].col_offset))]

    assert called.index("self._signatures.refusal") < called.index("Permitted")
    assert called.index("self._begun.begin") < called.index("Permitted")
    assert called.index("self._policy") < called.index("Permitted")


def test_the_rules_see_what_they_forbid() -> None:
    forbidden = ast.parse(
        "from agents.executors.permitted import Permitted\nawait executor.execute(Permitted(work), context)"
    )

    assert [name for _, name in called_names(forbidden)] == ["executor.execute", "Permitted"]
    assert [name for _, name in imported_names(forbidden)] == ["agents.executors.permitted"]


def _near() -> list[Module]:
    return [module for module in modules("src") if module.path.startswith(NEAR)]


def _is_passage(module: Module, node: ast.Attribute) -> bool:
    """Say whether this is the runner's call of what the gate let through, which is no executor."""
    return module.path == "src/agents/tasks/runner.py" and dotted_name(node) == "passage.execute"
