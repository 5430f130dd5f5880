"""Work on several agents at a time, on a terminal: which agents, how far it is, and what came of it."""

from contextlib import aclosing
from typing import Any

from chiffon.cli.console import print_json, print_table, put, say
from chiffon.cli.outcome import Usage, exit_of_work
from chiffon.cli.parameters import collect_pairs
from chiffon.cli.progress_line import ProgressLine
from chiffon.client import AnyId, Client
from common.rest.fan_outs import FanOut
from common.rest.tasks import DispatchResponse

LABELS = "label="


def parse_on(text: str) -> dict[str, Any]:
    """Return the selector that `--on` means: `all`, `label=NAME=VALUE,…` or names of agents; raises `Usage`."""
    if text == "all":
        return {"all": True}
    if text.startswith(LABELS):
        return {"labels": collect_pairs(text.removeprefix(LABELS).split(","))}
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise Usage("--on wants all, label=NAME=VALUE, or names of agents with commas between them")
    return {"agents": names}


def parse_batch(text: str) -> int | str:
    """Return how many agents work at a time: a number, or a percentage as it stands."""
    return int(text) if text.isdecimal() else text


def print_accepted(accepted: DispatchResponse, *, as_json: bool) -> None:
    """Print the id of a fan-out, and say who gets a task and who does not."""
    if as_json:
        print_json(accepted)
        return
    say(f"Dispatched to {len(accepted.tasks or ())} agents. How it goes: chiffon status --wait with this id:")
    put(str(accepted.task_id))
    say_skipped(accepted)


def say_skipped(accepted: DispatchResponse) -> None:
    for skipped in accepted.skipped or ():
        say(f"Skipped {skipped.name}: {skipped.reason}")


async def wait_for_fan_out(client: Client, fan_out_id: AnyId, *, as_json: bool) -> int:
    """Show how far a fan-out is until it has ended, then print it; return the exit status for the outcome."""
    async with aclosing(client.watch_fan_out(fan_out_id)) as states:
        with ProgressLine(else_lines=True) as line:
            async for found in states:
                line.show(_progress(found))
    print_fan_out(found, as_json=as_json)
    return exit_of_work(found.status, None)


def print_fan_out(found: FanOut, *, as_json: bool) -> None:
    """Print a fan-out, one line for each agent."""
    if as_json:
        print_json(found)
        return
    print_table(
        ("AGENT", "STATUS", "EXIT", "RAN", "TASK", "WHY"),
        (
            (
                task.agent_name or str(task.agent_id),
                task.status,
                task.exit_code,
                None if task.duration_ms is None else f"{task.duration_ms / 1000:.1f} s",
                task.task_id,
                task.error_message,
            )
            for task in found.tasks
        ),
    )
    say(f"{found.status}: {_progress(found)}")


def _progress(found: FanOut) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in sorted(found.counts.items()) if number)
    return f"{len(found.tasks)} agents: {counts}"
