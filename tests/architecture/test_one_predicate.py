"""Whether an agent may work, and which task goes first, is written once."""

import importlib
import pkgutil
import re
from collections.abc import Iterator

import orchestrator

# Statements that set or show these facts. Whether an agent may have work is for `agent_may_work` alone.
STORE_OR_SHOW = {
    "orchestrator.registry.queries.UPSERT",
    "orchestrator.registry.queries.PAUSE",
    "orchestrator.registry.queries.DRAIN",
    "orchestrator.registry.queries.END_DRAINS",
    "orchestrator.registry.queries.RESUME",
    "orchestrator.registry.queries.SET_BREAKER",
    "orchestrator.leases.queries.LEASE",
    "orchestrator.registry.queries.REGISTERED",
    "orchestrator.registry.queries.SHUT_OUT",
    "orchestrator.registry.queries.STANDINGS",
    "orchestrator.registry.queries.LOCK",
    "orchestrator.registry.queries.LOCK_FOR_BREAKER",
    "orchestrator.registry.queries.LIST",
    "orchestrator.why.queries.AGENTS",
    "orchestrator.jobs.queries.SEEN",
}
# Identities ask it of people and services, too, and runs of those who started them.
OTHER_SUBJECT = ("orchestrator.identities.queries.", "orchestrator.runs.queries.")
FACTS = re.compile(r"\b(draining|paused_until|tripped_until|disabled_at|clock_off_by)\b")
# The first column of an order that picks: anything else than the rank would be another order.
PICKS = re.compile(r"ORDER BY (?:\w+\.)?(priority|precedence)\b")


def statements() -> Iterator[tuple[str, str]]:
    for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
        if module.name.endswith("queries"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if name.isupper() and isinstance(value, str):
                    yield f"{module.name}.{name}", re.sub(r"--.*", "", value)


def test_no_statement_repeats_the_facts_that_decide_whether_an_agent_may_work() -> None:
    repeating = {
        name
        for name, text in statements()
        if FACTS.search(text.replace("'draining'", "")) and not name.startswith(OTHER_SUBJECT)
    }

    assert repeating == STORE_OR_SHOW


def test_the_predicate_is_what_statements_ask_instead() -> None:
    asking = {name.rpartition(".")[0] for name, text in statements() if "agent_may_work(" in text}

    assert asking == {
        f"orchestrator.{module}"
        for module in (
            "dispatch.queries",
            "jobs.queries",
            "leases.credit_queries",
            "leases.finish_queries",
            "leases.queries",
            "leases.waiting_queries",
            "registry.queries",
            "why.queries",
        )
    }


def test_no_statement_orders_tasks_by_anything_but_their_rank() -> None:
    assert [name for name, text in statements() if PICKS.search(text)] == []
