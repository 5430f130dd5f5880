"""The statement for few tasks is that for many, with its arrays where the planner does not look."""

import re

from orchestrator.dispatch.queries import STORE, STORE_FEW


def test_every_array_of_the_statement_for_few_tasks_stands_in_a_subquery() -> None:
    arrays = re.findall(r"\$\d+::\w+\[\]", STORE)

    assert len(arrays) == 32
    assert all(f"(SELECT {array})" in STORE_FEW for array in arrays)
    assert re.sub(r"\(SELECT (\$\d+::\w+\[\])\)", r"\1", STORE_FEW) == STORE
