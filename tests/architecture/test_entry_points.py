"""The two ways in: installed, and from the root of the repository (docs/decisions/0001)."""

import subprocess
import sys

import pytest

from tests.architecture.source import ROOT


@pytest.mark.parametrize("module", ["orchestrator.main", "src.orchestrator.main"])
def test_the_application_can_be_imported(module: str) -> None:
    code = f"from {module} import app; print(type(app).__name__)"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "FastAPI", done.stderr


def test_importing_from_the_root_loads_nothing_twice_but_the_module_itself() -> None:
    code = "import sys, src.orchestrator.main; print(*sorted(m for m in sys.modules if m.startswith('src.')))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["src.orchestrator", "src.orchestrator.main"], done.stderr


def test_an_orchestrator_starts_without_the_tools_that_migrate() -> None:
    code = "import sys, orchestrator.main; print(sorted({'alembic', 'sqlalchemy'} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.stdout.strip() == "[]", done.stderr
