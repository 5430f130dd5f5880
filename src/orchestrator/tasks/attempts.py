"""How statements look up attempts: the last one is in the row of its task, the others are in `earlier_attempt`."""


def attempt_of(task_id: str, number: str) -> str:
    """Return a LATERAL subquery for one attempt, from the view `attempt`, which shows all.

    LIMIT keeps the planner from joining the view as a whole: it would read every task.
    """
    return f"LATERAL (SELECT * FROM attempt WHERE task_id = {task_id} AND number = {number} LIMIT 1)"  # noqa: S608 - names
