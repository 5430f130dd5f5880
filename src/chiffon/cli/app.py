"""The `chiffon` command: its list of commands, and how it ends.

Each command lives in a module of its own that is imported when it is called; so the summaries stand here as well, and
a test compares them with the commands' own.
"""

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, NoReturn

from cyclopts import App, Group

from chiffon import __version__
from chiffon.cli.streams import unfailing_output
from chiffon.first_process import become_init
from common.garbage import look_rarely
from common.private import OWN_UMASK

SUMMARY = """Dispatch work to agents, watch it run, and see what became of it.

Start with chiffon up, then: chiffon dispatch shell_script --wait -- uname -a
With --debug in front of the command, a failure shows where it happened.
"""

DEBUG = "--debug"


class Command(NamedTuple):
    target: str
    group: str
    summary: str


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "up": Command("chiffon.cli.up:up", "Start", "Start everything on this machine and stay until stopped."),
        "demo": Command("chiffon.cli.demo:demo", "Start", "Run real work on two agents of this machine and show it."),
        "demo-run": Command(
            "chiffon.cli.demo_run:demo_run",
            "Start",
            "Repair a service of Docker Compose on this machine, break it, and show that it is rolled back.",
        ),
        "server": Command("chiffon.cli.server:server", "Start", "Run an orchestrator."),
        "agent": Command("chiffon.cli.agent:app", "Start", "Run an agent: it takes work and runs it on this host."),
        "spool": Command(
            "chiffon.cli.spool:spool", "Start", "Dispatch what is dropped into a directory and write the results back."
        ),
        "db": Command("chiffon.cli.db:app", "Start", "Prepare the orchestrator's database."),
        "keys": Command(
            "chiffon.cli.keys:app", "Start", "Make, list and retire the keys that sign what agents may run."
        ),
        "rabbitmq": Command(
            "chiffon.cli.rabbitmq:app", "Start", "Set RabbitMQ up, with a user of its own for each agent."
        ),
        "dispatch": Command("chiffon.cli.dispatch:dispatch", "Work", "Hand in a task."),
        "status": Command("chiffon.cli.status:status", "Work", "Show where a task stands, or work on several agents."),
        "why": Command("chiffon.cli.why:why", "Work", "Say what a task waits for, or a run."),
        "logs": Command("chiffon.cli.logs:logs", "Work", "Print what a task wrote, from the start."),
        "cancel": Command(
            "chiffon.cli.cancel:cancel", "Work", "Cancel a task, or a whole trace; what runs is stopped."
        ),
        "rerun": Command("chiffon.cli.rerun:rerun", "Work", "Run a task that has ended once more, as a new task."),
        "tasks": Command("chiffon.cli.tasks:tasks", "Work", "List tasks, newest first."),
        "watch": Command("chiffon.cli.watch:watch", "Work", "Print what happens, as it happens."),
        "runs": Command(
            "chiffon.cli.runs:app",
            "Work",
            "Run plans of several steps and repairs of services, and follow, approve, cancel and retry them.",
        ),
        "work-types": Command(
            "chiffon.cli.work_types:work_types",
            "Work",
            "List the work types, their pools, and the agents that offer them now.",
        ),
        "agents": Command("chiffon.cli.agents:app", "Work", "List the agents, or pause, drain and resume one."),
        "identities": Command(
            "chiffon.cli.identities:app", "Access", "List who is known, make somebody known, shut out."
        ),
        "tokens": Command("chiffon.cli.tokens:app", "Access", "List, make, claim and revoke tokens."),
        "whoami": Command("chiffon.cli.whoami:whoami", "Access", "Show whose token is used, and what it may do."),
        "dead-letters": Command(
            "chiffon.cli.dead_letters:app",
            "Work",
            "List what nobody could deal with, look at it, replay or discard it.",
        ),
        "approvals": Command(
            "chiffon.cli.approvals:app",
            "Work",
            "List what waits for people, look at exactly what would run, approve or reject it.",
        ),
        "services": Command(
            "chiffon.cli.services:app", "Work", "Check the file of services that can be repaired, and list them."
        ),
        "policy": Command(
            "chiffon.cli.policy:app", "Work", "Check a file of rules, and say which rule decides about some work."
        ),
        "ops": Command("chiffon.cli.ops:app", "Work", "Show what waits and runs, and what came of the last."),
        "audit": Command(
            "chiffon.cli.audit:app", "Work", "Check that the audit log is what was written, and ask it who did what."
        ),
        "conformance": Command(
            "chiffon.cli.conformance:conformance",
            "About",
            "Try a worker of the queue API, in whatever language, and print what it got wrong.",
        ),
        "version": Command("chiffon.cli.version:version", "About", "Print the version."),
    }
)


def build_app(arguments: Sequence[str]) -> App:
    """Return the command line's parser, with the summaries only if they will be shown.

    A summary given here would replace the longer help that stands beside the command.
    """
    lists_commands = not arguments or arguments[0] not in COMMANDS
    groups = {name: Group(name, sort_key=place) for place, name in enumerate(("Start", "Work", "Access", "About"))}
    app = App(
        name="chiffon",
        help=SUMMARY,
        # Reading Markdown costs 50 ms, and the list of commands needs none.
        help_format="plaintext" if lists_commands else "markdown",
        version=__version__,
        group_commands=groups["About"],
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, command in COMMANDS.items():
        shown = {"help": command.summary} if lists_commands else {}
        app.command(command.target, name=name, group=groups[command.group], **shown)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    shows_where = list(arguments[:1]) == [DEBUG]
    arguments = arguments[1:] if shows_where else arguments
    try:
        # An error of the parser repeats words of the command line, which others may have written.
        outcome = build_app(arguments)(arguments, print_error=False, exit_on_error=False)
    except KeyboardInterrupt:
        return 130
    except Exception as failure:
        from chiffon.cli.console import say
        from chiffon.cli.outcome import explain_failure

        # The message of an exception may repeat what a server or a program said, so Python does not print it.
        where = "".join(traceback.format_exception(failure)).splitlines()
        if shows_where:
            say(*where)
        status = explain_failure(failure, arguments)
        if status is None and not shows_where:
            say(*where)
        return 1 if status is None else status
    return outcome if isinstance(outcome, int) else 0


def main() -> NoReturn:
    """Run the command line of this process."""
    look_rarely()
    os.umask(OWN_UMASK)
    become_init()
    with unfailing_output():
        status = run(sys.argv[1:])
    sys.exit(status)
