"""The two ways in: installed, and from the root of the repository (docs/decisions/0001)."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.source import ROOT

OVERRIDE = """
from unittest.mock import AsyncMock
from fastapi.testclient import TestClient
from src.orchestrator.api import get_orchestrator_service, router
from src.orchestrator.main import app
from src.orchestrator.service import OrchestratorService

def test_a_caller_sees_the_agents_of_the_service_that_replaces_the_own_one():
    service = AsyncMock(OrchestratorService)
    service.list_agents.return_value = []
    app.state.pools = ()
    app.dependency_overrides[get_orchestrator_service] = lambda: service
    answer = TestClient(app).get("/api/v1/agents")
    assert answer.json() == []
    assert {route.path for route in router.routes} >= {"/api/v1/dispatch", "/api/v1/status/{task_id}"}
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("first", "other"), [("", "src."), ("src.", "")])
def test_the_application_is_imported_once_whichever_of_its_names_comes_first_and_without_what_migrates(
    first: str, other: str
) -> None:
    # None of them imports one that follows it, so each is imported first under the name that is meant.
    names = ("common.rabbitmq", "orchestrator.tasks.service", "orchestrator.api", "orchestrator.main")
    code = f"""
import sys
from importlib import import_module as get
for name in {names}:
    assert name not in sys.modules, name
    print(get({first!r} + name) is get({other!r} + name))
print(type(get({first!r} + "orchestrator.main").app).__name__, {{"alembic", "sqlalchemy"}} & set(sys.modules))
"""

    assert run(code).split() == ["True"] * len(names) + ["FastAPI", "set()"]


def test_a_module_keeps_its_installed_name() -> None:
    assert run("import src.common.work as work; print(work.__name__, work.__spec__.name)") == "common.work common.work"


def test_what_is_not_there_is_not_found_under_the_other_name_either() -> None:
    code = "from importlib.util import find_spec; import src; print(find_spec('src.json'), find_spec('src.nothing'))"

    assert run(code) == "None None"


def test_what_the_seed_imports_is_there() -> None:
    names = "MessageEnvelope, StatusUpdate, WorkRequest, WorkResult, WorkStatus"

    assert run(f"from src.common.protocol import {names}; print(WorkRequest.__name__)") == "WorkRequest"


def test_a_service_is_replaced_and_its_routes_are_measured_under_the_names_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "test_override.py").write_text(OVERRIDE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(tmp_path),
        f"--rootdir={ROOT}",
        f"--config-file={ROOT}/pyproject.toml",
    ]
    measure = ["--cov=src.orchestrator.api", "--cov-report=term", "-p", "no:cacheprovider"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "COVERAGE_FILE": str(tmp_path / "coverage"),
        "CHIFFON_AUTHENTICATION": "off",
    }

    done = subprocess.run(command + measure, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)

    assert "1 passed" in done.stdout, done.stdout + done.stderr
    [measured] = [line.split() for line in done.stdout.splitlines() if line.startswith("src/")]
    assert measured[0] == "src/orchestrator/api.py"
    assert measured[1] != measured[2], "no line of it was reached"
