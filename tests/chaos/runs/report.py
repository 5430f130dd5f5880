"""The figures of killed repairs: as JSON, as a table, and the whole story of one that did not end as promised."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tests.chaos.evidence import Violation
from tests.chaos.runs.checks import ENDS
from tests.chaos.runs.evidence import Carried
from tests.chaos.runs.plan import Victim


def figures(seed: int, carried: Sequence[Carried], found: Sequence[Violation]) -> dict[str, Any]:
    """Return everything worth knowing about the repairs."""
    made = [(one, kill) for one in carried for kill in one.kills]
    return {
        "seed": seed,
        "repairs": len(carried),
        "repairs_without_a_kill": sum(not one.kills for one in carried),
        "kills": len(made),
        "killed": {victim: sum(kill.kill.victim is victim for _, kill in made) for victim in Victim},
        "ends": {
            victim: dict(
                Counter(one.status for one in carried if any(kill.kill.victim is victim for kill in one.kills))
            )
            for victim in Victim
        },
        "places": dict(sorted(Counter(f"{kill.kill.victim} {kill.hit}" for _, kill in made).items())),
        "changes": dict(Counter(f"{one.repair.change}: {one.status}" for one in carried)),
        "shown_first": sum(one.repair.is_shown for one in carried),
        "seconds": round(sum(one.seconds for one in carried)),
        "violations": dict(Counter(violation.promise for violation in found)),
    }


def table(result: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [
        (
            f"seed {result['seed']}: {result['kills']} kills in {result['repairs']} repairs"
            f" ({result['repairs_without_a_kill']} ended before their point), {result['seconds']} s,"
            f" {result['shown_first']} with a gate"
        ),
        f"{'killed':14}{'times':>6}  " + "".join(f"{status:>13}" for status in ENDS),
    ]
    for victim in Victim:
        ends = result["ends"][victim]
        lines.append(f"{victim:14}{result['killed'][victim]:>6}  " + "".join(f"{ends.get(one, 0):>13}" for one in ENDS))
    lines += [f"{place:50} {count:>4}" for place, count in result["places"].items()]
    lines.append(f"violations: {result['violations'] or 'none'}")
    return "\n".join(lines)


def story(carried: Carried, found: Sequence[Violation]) -> str:
    """Return what was not as promised about a repair, and everything that is known of it."""
    lines = [str(violation) for violation in found]
    lines.append(f"--- repair {carried.number}, run {carried.run_id}: {carried.repair}")
    lines += [f"killed  {made.kill} at {made.at:.3f}, which was {made.hit}" for made in carried.kills]
    lines.append(f"run     {carried.status} {dict(carried.steps)}")
    lines.append(f"tasks   {dict(carried.tasks)}")
    lines.append(f"before  {json.dumps(asdict(carried.before))}")
    lines.append(f"after   {json.dumps(asdict(carried.after))}")
    lines.append(f"state   {json.dumps(carried.state)}")
    return "\n".join(lines)
