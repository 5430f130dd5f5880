"""Each condition of the statements that lease work, end leases, admit tasks or register agents has a mutant.

Others are listed as no guard. So a new condition needs a mutant, and with it a test that fails without the condition.
"""

import ast
import re
from collections import Counter
from collections.abc import Mapping
from functools import cache

import pytest

from tests.architecture.source import ROOT, modules
from tests.architecture.test_mutants import MUTANTS

ROW = "which row is meant"
LINE = "which line of tasks is meant"
ORDER = "always true: it has rows locked before the head of the events"
ANY_WORK = "an exemption: no kinds of work mean any"
IS_LEASED = "a task has a claim and the end of a lease only while it runs: task_runs_with_a_lease_or_not_at_all"

# What is no guard, and why, by the file, the statement (or the function that returns a part of some) and the condition.
STATEMENTS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "src/orchestrator/leases/queries.py": {
        "LEASE": {
            "task.task_id = new.task_id": ROW,
            "agent.worker_id IS NOT NULL": "an exemption: a worker over HTTP has no credit, and asks for each task",
            "agent.agent_id = agents.agent_id": ROW,
            "task.task_id = held.task_id": ROW,
        },
        "END": {"task.task_id = new.task_id": ROW},
        "REPORT_STOPPED": {"task.task_id = new.task_id": ROW},
        "REQUEUE": {"new.task_id = task.task_id": ROW, "task.task_id = new.task_id": ROW},
        "RENEW": {"task.task_id = lease.task_id": ROW, "task.task_id = held.task_id": ROW},
        "EXPIRED": {"status = 'running'": IS_LEASED},
        "LOCK_EXPIRED": {"task_id = ANY($1::uuid[])": ROW, "status = 'running'": IS_LEASED},
    },
    "src/orchestrator/leases/finish_queries.py": {
        "FINISH": {
            "task.task_id = new.task_id": ROW,
            "agent.agent_id = new.agent_id": ROW,
            "task.task_id = held.task_id": ROW,
            "(SELECT ...) >= 0": ORDER,
        },
    },
    "src/orchestrator/leases/credit_queries.py": {
        "credited": {
            "agent.agent_id = said.agent_id": ROW,
            "(SELECT ...) >= 0": ORDER,
            "agent.agent_id = agents.agent_id": ROW,
        },
        "GRANT_AGAIN": {
            "task.agent_id = session.agent_id": ROW,
            "agent.agent_id = session.agent_id": ROW,
            "task.status = 'running'": IS_LEASED,
            "task.task_id = held.task_id": ROW,
        },
        "NOTE_LOST": {
            "agent.agent_id = new.agent_id": ROW,
            "agent.lost < new.lost": "spares a write: `greatest` takes in no loss that was noted before",
            "agent.agent_id = held.agent_id": ROW,
        },
    },
    "src/orchestrator/leases/waiting_queries.py": {
        "ASKERS": {
            "agent_type = ANY($1::text[])": "spares rows: `pairing.suitable` compares the pools",
            "{ROOM} > 0": "spares rows: `pairing.pair` gives nothing to an agent without room",
            "$5": "an exemption: with a placement constraint all agents count, also those without room",
            "EXISTS (SELECT ...)": "spares rows: its own conditions stand here, too",
            "line.pool = agent.agent_type": LINE,
            "agent.work_types = '{}'": ANY_WORK,
        },
        "WAITING": {
            "task_id = ANY(ARRAY(SELECT ...))": ROW,
            "agent_type = line.agent_type": LINE,
            "work_type = line.work_type": LINE,
            "aim = line.aim": LINE,
        },
    },
    "src/orchestrator/dispatch/queries.py": {
        "STORE": {
            "agent_id IN (SELECT ...)": ROW,
            "agents.work_types = '{}'": ANY_WORK,
            "agent_id IS NOT NULL": "counts the tasks that were leased, of each agent",
            "agent.agent_id = leased.agent_id": ROW,
            "event.kind <> 'task.claimed'": "an exemption: that a task was stored is told whoever gets it",
            "(SELECT ...) >= 0": ORDER,
        },
    },
    "src/orchestrator/tasks/queries.py": {
        "CANCEL": {"task_id = ANY($1::uuid[])": ROW},
        "EXPIRE": {"task.task_id = new.task_id": ROW},
        "LOCK_EXPIRED": {
            "task_id = ANY($1::uuid[])": ROW,
            "expires_at <= now()": "EXPIRED asked for it, and the end of a wait never changes",
        },
        "SET_PROGRESS": {"task.task_id = new.task_id": ROW},
    },
    "src/orchestrator/keys/queries.py": {
        "CONCURRENCY_KEYS_OF_NEXT": {
            "ordering_key = given.key": ROW,
            "status IN ('awaiting_approval', 'pending', 'running')": "a key too many is held for what awaits approval",
            "next.concurrency_key IS NOT NULL": "spares rows",
        },
        "SET_LIMITS": {"known.at_most <> excluded.at_most": "spares a write, and a look for what is beyond the limit"},
        "WITHDRAW": {
            "concurrency_key = given.key": ROW,
            "held.concurrency_key = given.key": ROW,
            "task_id = ANY(ARRAY(SELECT ...))": ROW,
        },
        "ADMIT_IN_ORDER": {
            "ordering_key = given.key": ROW,
            "task_id = ANY(ARRAY(SELECT ...))": ROW,
            "first.status = 'pending'": "asked again by the statement around it, which a redundant mutant is about",
            "NOT first.admitted": "spares a write: what may go stays as it is",
        },
        "ADMIT_WITHIN_LIMITS": {
            "concurrency_key = given.key": ROW,
            "held.concurrency_key = given.key": ROW,
            "task_id = ANY(ARRAY(SELECT ...))": ROW,
            "status = 'pending'": "asked twice, in the choice and around it, which a redundant mutant is about",
            "first_in_order": "the ledger refuses any other: task_only_the_first_is_admitted",
            "concurrency_key LIKE 'fan-out:%'": "names the index: no other key has a number of failures that stops it",
        },
        "IS_STOPPING": {
            "task_id = ANY($1::uuid[])": ROW,
            "status = 'running'": "the caller asked for it, of rows that are locked",
            "coalesce(ordering_key, concurrency_key) IS NOT NULL": "the caller asked for it, and keys never change",
        },
        "STOPPED": {"stopping.task_id = told.task_id": ROW},
        "OVERDUE": {},
        "GIVE_UP_ON": {"task_id = ANY($1::uuid[])": ROW},
    },
    "src/orchestrator/registry/queries.py": {
        "LOCK": {
            "agent_id = ANY($1::uuid[])": ROW,
            "agent.agent_id = ANY($1::uuid[])": ROW,
            "agent.agent_id = principal.agent_id": ROW,
            "principal.agent_id = agent.agent_id": ROW,
            "NOT EXISTS (SELECT ...)": "spares a row: that of the agent says the same",
        },
        "LOCK_FOR_BREAKER": {
            "agent.agent_id = ANY($1::uuid[])": ROW,
            "principal.agent_id = agent.agent_id": ROW,
            "agent.agent_id = ANY($2::uuid[])": "which agents fail now",
        },
        "UPSERT": {"agent.agent_id = new.agent_id": ROW},
        "BEAT": {
            "agent.agent_id = held.agent_id": ROW,
            "agent.status IN ('online', 'busy')": "an exemption: the events of tasks tell that an agent runs something",
            "new.sent_at IS NULL": "an exemption: who names no time says nothing of its clock",
        },
        "FORGET": {
            "agent_id = $1": ROW,
            "status = 'offline'": "an exemption: who said that it leaves need not be silent",
        },
        "MARK_SILENT": {"agent_id IN (SELECT ...)": ROW},
    },
}
# Tasks that wait for the answer of people have no lease.
OF_APPROVALS = {("src/orchestrator/approvals/queries.py", name) for name in ("LET_GO", "CANCEL_TASKS")}

CASES = [(path, name) for path, names in STATEMENTS.items() for name in names]

CLAUSE = re.compile(
    r"\b(?:WHERE|ON(?! CONFLICT))\b(?P<asked>.*?)"
    r"(?=\b(?:WHERE|ON|JOIN|LEFT|CROSS|GROUP|ORDER|LIMIT|FOR|RETURNING|UNION|SELECT|UPDATE|SET)\b|$)"
)
GROUP = re.compile(r"\((\d+)\)")
# What sets the state or the lease of tasks.
CHANGES = re.compile(
    r"UPDATE task SET (?:(?!\bWHERE\b|\bFROM\b).)*?\b(?:status|lease_expires_at) ="
    r"|INSERT INTO task \([^)]*lease_expires_at"
)


@pytest.mark.parametrize(("path", "name"), CASES)
def test_every_condition_is_taken_away_by_a_mutant_or_is_no_guard(path: str, name: str) -> None:
    assert _unheld(path, name, _source(path)) == []


@pytest.mark.parametrize(("path", "name"), CASES)
def test_what_is_no_guard_is_a_condition(path: str, name: str) -> None:
    assert set(STATEMENTS[path][name]) - set(conditions(_statements(_source(path))[name])) == set()


def test_no_other_statement_sets_the_state_or_the_lease_of_tasks() -> None:
    found = {
        (module.path, name)
        for module in modules("src/orchestrator")
        for name, text in _statements(module.text).items()
        if CHANGES.search(" ".join(text.split()))
    }

    assert found - set(CASES) == OF_APPROVALS


def test_a_new_condition_is_noticed() -> None:
    path, known = "src/orchestrator/leases/queries.py", "AND asked.tasks = 1"
    source = _source(path).replace(known, f"{known} AND agent.slots > 0")

    assert _unheld(path, "LEASE", source) == ["agent.slots > 0"]


def test_conditions_are_found_wherever_they_stand() -> None:
    sql = """
        WITH held AS (SELECT * FROM a JOIN b ON a.id = b.id AND coalesce(a.on, false)  -- WHERE nothing
                       WHERE (a.x = 1 OR f(a.y) < 2 AND a.z IN ('p', 'q')) ORDER BY a.id FOR UPDATE OF a)
        INSERT INTO c SELECT * FROM held WHERE NOT EXISTS (SELECT FROM d WHERE d.id = held.id)
            ON CONFLICT DO NOTHING
    """

    assert sorted(conditions(sql)) == [
        "NOT EXISTS (SELECT ...)",
        "a.id = b.id",
        "a.x = 1",
        "a.z IN ('p', 'q')",
        "coalesce(a.on, false)",
        "d.id = held.id",
        "f(a.y) < 2",
    ]


def conditions(sql: str) -> list[str]:
    """Return what a statement asks behind WHERE and ON, each side of AND and OR by itself."""
    flat, groups = _grouped(" ".join(re.sub(r"--.*", "", sql).split()))
    found: list[str] = []
    taken: set[int] = set()
    for clause in CLAUSE.finditer(flat):
        for side in re.split(r"\b(?:AND|OR)\b", clause["asked"]):
            whole = GROUP.fullmatch(side.strip())
            if whole is not None and not groups[int(whole[1])].startswith("SELECT"):
                taken.add(int(whole[1]))
                found += conditions(f"WHERE {groups[int(whole[1])]}")
            else:
                found.append(_shown(side.strip(), groups))
    return found + [one for number, group in enumerate(groups) if number not in taken for one in conditions(group)]


def _grouped(text: str) -> tuple[str, list[str]]:
    """Return a text with a number in place of what stands in each pair of parentheses, and what stands there."""
    flat, groups, depth, begin = "", list[str](), 0, 0
    for position, sign in enumerate(text):
        if sign == "(":
            depth += 1
            begin = position + 1 if depth == 1 else begin
        elif sign == ")":
            depth -= 1
            if depth == 0:
                flat += f"({len(groups)})"
                groups.append(text[begin:position].strip())
        elif depth == 0:
            flat += sign
    return flat, groups


def _shown(flat: str, groups: list[str]) -> str:
    """Return the text again, without what stands in subqueries."""

    def show(number: re.Match[str]) -> str:
        group = groups[int(number[1])]
        return "(SELECT ...)" if group.startswith("SELECT") else f"({_shown(*_grouped(group))})"

    return GROUP.sub(show, flat)


def _unheld(path: str, name: str, source: str) -> list[str]:
    """Return the conditions of a statement that no mutant takes away and that are not listed as no guard."""
    asked = Counter(conditions(_statements(source)[name]))
    taken = Counter[str]()
    for changed in _mutated(path, source):
        taken += asked - Counter(conditions(_statements(changed)[name]))
    listed = Counter({condition: asked[condition] for condition in STATEMENTS[path][name]})
    return sorted((asked - taken - listed).elements())


@cache
def _source(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def _mutated(path: str, source: str) -> tuple[str, ...]:
    return tuple(mutant.change.apply(source) for mutant in MUTANTS if mutant.file == path)


@cache
def _statements(source: str) -> Mapping[str, str]:
    """Return the text of every constant of a module, and of what its functions return, by name."""
    values: dict[str, ast.expr] = {}
    for node in ast.parse(source).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values[name] = value
            case ast.FunctionDef(name=name, body=[*_, ast.Return(value=ast.JoinedStr() as value)]):
                values[name] = value
            case _:
                pass
    return {name: _text(value, values) for name, value in values.items()}


def _text(node: ast.expr, values: Mapping[str, ast.expr]) -> str:
    """Return the text that an expression makes, with the names of what is not written there."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, values) for part in parts)
        case ast.FormattedValue(value=value):
            return f"{{{ast.unparse(value)}}}"
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, values) + _text(right, values)
        case ast.Name(id=name) if name in values:
            return _text(values[name], values)
        case ast.Call(args=args, keywords=keywords):
            said = [one for one in (*args, *(keyword.value for keyword in keywords)) if isinstance(one, ast.Constant)]
            return f"({' '.join(_text(one, values) for one in said)})"
        case _:
            return ""
