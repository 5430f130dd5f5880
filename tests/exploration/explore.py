"""Explore a scope, and say what was found in words."""

import gc

from tests.exploration.checker import Checker, Explored, Violation
from tests.exploration.invariants import CONVERGENCE, MEANING, Invariants, describe, explain
from tests.exploration.model import Action, Model
from tests.exploration.scope import Scope
from tests.exploration.state import State

# What must not be needed to come to rest.
FAULTS = frozenset({"crash", "crash at the end", "orchestrator crashes", "cancel"})


def explore(scope: Scope, *, at_most: int) -> Explored[State, Action]:
    """Visit every state of a scope; raises `TooManyStates`."""
    model, invariants = Model(scope), Invariants(scope)
    checker = Checker(
        initial=model.initial(),
        steps=model.steps,
        broken_by=invariants.broken_by,
        broken_in=invariants.broken_in,
        name=lambda action: action.name,
        converged=model.converged,
        is_fault=lambda action: action.name in FAULTS,
        convergence=CONVERGENCE,
        at_most=at_most,
    )
    # States hold no cycles, and looking for some among hundreds of thousands takes a sixth of the time.
    gc.disable()
    try:
        return checker.explore()
    finally:
        gc.enable()


def story(violation: Violation[State, Action]) -> str:
    """Return the counterexample as a text: each step, and what it led to."""
    lines = [f"{name}: {MEANING[name]}" for name in sorted(violation.broken)]
    for number, (action, state) in enumerate(violation.trace):
        lines += [f"{number:3} {explain(action)}", f"      {describe(state)}"]
    return "\n".join(lines)
