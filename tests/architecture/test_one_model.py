"""A request or an answer of the REST API is defined once, in common/rest, for the server, the client and the agents."""

import importlib
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest
from pydantic import BaseModel
from pydantic.alias_generators import to_snake

import agents
import chiffon
import common.rest
import orchestrator
from common.config import Settings
from common.rest.base import Answer, Request


def _import_all(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith(".__main__") and ".migrations." not in module.name:
            importlib.import_module(module.name)


def _heirs(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for heir in model.__subclasses__():
        yield heir
        yield from _heirs(heir)


def _models(*packages: ModuleType) -> list[type[BaseModel]]:
    for package in packages:
        _import_all(package)
    names = tuple(f"{package.__name__}." for package in packages)
    found = {model for model in _heirs(BaseModel) if model.__module__.startswith(names)}
    return sorted((model for model in found if model.model_fields), key=_name)


def _name(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__name__}"


def _is_again(own: set[str], known: set[str]) -> bool:
    """Say whether fields are those of another model, or mostly some of them."""
    shared = len(own & known)
    return own == known or (shared >= 3 and shared * 2 > len(own))


def _fields(model: type[BaseModel]) -> set[str]:
    return {to_snake(name) for name in model.model_fields}


REST = _models(common.rest)


def test_no_model_elsewhere_has_the_fields_of_a_request_or_an_answer() -> None:
    again = [
        f"{_name(model)} is {_name(one)} again: {', '.join(sorted(_fields(model) & _fields(one)))}"
        for model in _models(agents, chiffon, orchestrator)
        # What an agent has on its disk stays as it was written, whatever the REST API becomes.
        if not model.__module__.startswith(("agents.disk.", "agents.artifacts.spool", "agents.repairs."))
        for one in REST
        if _is_again(_fields(model), _fields(one))
    ]

    assert not again, "\n".join(again)


def test_the_orchestrator_and_the_client_have_no_models_but_their_settings() -> None:
    own = [_name(model) for model in _models(chiffon, orchestrator) if not issubclass(model, Settings)]

    assert not own, "define it in common/rest:\n" + "\n".join(own)


def test_no_two_requests_or_answers_have_one_name() -> None:
    names = [model.__name__ for model in REST]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("model", REST, ids=lambda model: model.__name__)
def test_a_request_refuses_and_an_answer_ignores_what_is_not_known(model: type[BaseModel]) -> None:
    kinds = [kind for kind in (Request, Answer) if issubclass(model, kind)]

    assert len(kinds) == 1
    assert model.model_config["extra"] == ("forbid" if kinds == [Request] else "ignore")
    assert model.model_config["frozen"]
