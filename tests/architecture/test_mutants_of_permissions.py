"""Every permission that a route demands, and every role, has a mutant in permissions.toml that weakens it."""

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from common.rest.identities import Permission, Role
from orchestrator.identities.access import demands_of
from tests.architecture.test_mutants import MUTANTS as ALL
from tests.mutants.catalogue import Mutant
from tests.mutants.change import REPOSITORY
from tests.permissions import ALLOWED, DEMANDED, WEBSOCKET, Open, Route

ROLES = "src/orchestrator/identities/permissions.py"
MUTANTS = [mutant for mutant in ALL if mutant.area == "permissions" and mutant.redundant is None]
OF_ROUTES = [mutant for mutant in MUTANTS if mutant.file.endswith("/api.py")]
OF_ROLES = [mutant for mutant in MUTANTS if mutant.file == ROLES]


def test_every_permission_is_demanded_by_a_route_that_a_mutant_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    demanded = {demand for demand in DEMANDED.values() if not isinstance(demand, Open)}

    weakened = {DEMANDED[route] for mutant in OF_ROUTES for route in opened(mutant, monkeypatch)}

    assert demanded == set(Permission)
    assert sorted(demanded - weakened) == []


def test_every_role_is_allowed_more_by_a_mutant(monkeypatch: pytest.MonkeyPatch) -> None:
    widened = {role for mutant in OF_ROLES for role, more in added(mutant, monkeypatch).items() if more}

    assert sorted(set(Role) - widened) == []


def opened(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> list[Route]:
    """Return the routes of a mutated module that demand a permission no longer."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(executed(mutant, monkeypatch)["router"])
    found = list[Route]()
    for route in iter_route_contexts(app.routes):
        for method in [WEBSOCKET] if route.methods is None else route.methods - {"HEAD"}:
            demand = DEMANDED[method, str(route.path)]
            if not isinstance(demand, Open) and demand not in demands_of(route):
                found.append((method, str(route.path)))
    return found


def added(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> Mapping[Role, frozenset[Permission]]:
    """Return what the roles of a mutated table allow beyond what is written down."""
    table: Mapping[Role, frozenset[Permission]] = executed(mutant, monkeypatch)["PERMISSIONS"]
    return {role: table[role] - ALLOWED[role] for role in Role}


def executed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the names of a mutated module."""
    module = ModuleType(f"mutant_of_permissions_{mutant.name.replace('-', '_')}")
    # Dataclasses look their module up.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    source = mutant.change.apply((REPOSITORY / mutant.file).read_text())
    exec(compile(source, mutant.file, "exec"), module.__dict__)
    return module.__dict__
