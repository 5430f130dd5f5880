"""Run a playbook of the host with `ansible-playbook`, and return what became of each host that it was for."""

import asyncio
import logging
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

from pydantic import TypeAdapter, ValidationError

from agents.executors import ansible_vars
from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.programs import Program
from agents.processes.lookup import find
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream
from common.result import MAX_RESULT_BYTES, canonical_result
from common.work import SUMMARY_FILE, SUMMARY_PLUGIN, VARIABLES_FILE, AnsibleParameters, SecretReference

log = logging.getLogger(__name__)

PROGRAM = "ansible-playbook"
PLUGIN = Path(__file__).with_name(SUMMARY_PLUGIN)
MOST_SUMMARY_BYTES = 16 * 1024 * 1024
MOST_NAMED = 5

Summary = dict[str, dict[str, int]]

_SUMMARY: TypeAdapter[Summary] = TypeAdapter(Summary)


class NotThere(Exception):
    """A path of the parameters is not in the directory of playbooks; the message says which."""


class AnsibleExecutor(Executor[AnsibleParameters]):
    kind: ClassVar[str] = "ansible"
    parameters = AnsibleParameters
    needs_workspace: ClassVar[bool] = True
    watches_stop: ClassVar[bool] = True

    def __init__(self, program: str, playbooks_dir: Path) -> None:
        self._program = program
        self._playbooks_dir = playbooks_dir

    @classmethod
    def offer(cls, host: Host) -> Self | None:
        if host.playbooks_dir is None:
            return None
        program = find(PROGRAM)
        if program is None or not host.playbooks_dir.is_dir():
            reason = f"{PROGRAM} is not installed" if program is None else f"{host.playbooks_dir} is no directory"
            log.warning("executor.not_offered", extra={"work_type": cls.kind, "reason": reason})
            return None
        return cls(program, host.playbooks_dir)

    async def carry_out(self, parameters: AnsibleParameters, context: ExecutionContext) -> Outcome:
        secrets = {
            name: await context.text_of(value)
            for name, value in parameters.extra_vars.items()
            if isinstance(value, SecretReference)
        }
        variables = {name: f"CHIFFON_EXTRA_VAR_{number}" for number, name in enumerate(secrets)}
        try:
            argv = await asyncio.to_thread(self._prepare, parameters, variables, context.workspace)
        except NotThere as problem:
            return Outcome.failed(str(problem), code=ErrorCode.INVALID_REQUEST)
        program = Program(
            argv=argv,
            limits=parameters,
            readable=(self._playbooks_dir,),
            env={**self._environment(context.workspace), **{variables[name]: secrets[name] for name in secrets}},
        )
        outcome = await program.run(context)
        user = context.enclosure.user
        owner = os.geteuid() if user is None else user.uid
        summary = await asyncio.to_thread(read_summary, context.workspace / SUMMARY_FILE, owner)
        return outcome if summary is None else await with_summary(outcome, summary, context)

    def _prepare(self, parameters: AnsibleParameters, variables: dict[str, str], workspace: Path) -> list[str]:
        """Write what the program reads, and return its arguments. Raises `NotThere`. Blocking."""
        root = self._playbooks_dir.resolve()
        playbook = _inside(root, "playbook", parameters.playbook)
        argv = [self._program]
        if parameters.inventory is not None:
            hosts = parameters.inventory if "," in parameters.inventory else None
            argv.append(f"--inventory={hosts or _inside(root, 'inventory', parameters.inventory)}")
        if parameters.limit is not None:
            argv.append(f"--limit={parameters.limit}")
        if parameters.tags:
            argv.append(f"--tags={','.join(parameters.tags)}")
        if parameters.check:
            argv.append("--check")
        if parameters.extra_vars:
            path = workspace / VARIABLES_FILE
            values = {name: value for name, value in parameters.extra_vars.items() if name not in variables}
            path.write_text(ansible_vars.as_yaml(values, variables), encoding="ascii")
            argv.append(f"--extra-vars=@{path}")
        shutil.copyfile(PLUGIN, workspace / PLUGIN.name)
        (workspace / PLUGIN.name).chmod(0o644)
        return [*argv, str(playbook)]

    def _environment(self, workspace: Path) -> dict[str, str]:
        configuration = self._playbooks_dir / "ansible.cfg"
        return {
            "ANSIBLE_CALLBACK_PLUGINS": str(workspace),
            "ANSIBLE_LOCAL_TEMP": str(workspace / ".tmp"),
            "ANSIBLE_NOCOLOR": "1",
            "CHIFFON_SUMMARY_FILE": str(workspace / SUMMARY_FILE),
            "PYTHONUNBUFFERED": "1",
            **({"ANSIBLE_CONFIG": str(configuration)} if configuration.is_file() else {}),
        }


def _inside(root: Path, field: str, name: str) -> Path:
    """Return where a path really leads, which must be inside the directory."""
    try:
        path = (root / name).resolve(strict=True)
    except OSError:
        raise NotThere(f"{field}: there is no {name!r} in the playbooks_dir of this agent.") from None
    if not path.is_relative_to(root):
        raise NotThere(f"{field}: {name!r} leads out of the playbooks_dir of this agent.")
    return path


def read_summary(path: Path, owner: int) -> Summary | None:
    """Return the summary that the plugin wrote; None when there is none. Blocking.

    The play may write here, too: it must not have this process read a file of others.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != owner or found.st_nlink != 1:
        os.close(file)
        return None
    with os.fdopen(file, "rb") as opened:
        text = opened.read(MOST_SUMMARY_BYTES + 1)
    try:
        return _SUMMARY.validate_json(text) if len(text) <= MOST_SUMMARY_BYTES else None
    except ValidationError:
        return None


async def with_summary(outcome: Outcome, summary: Summary, context: ExecutionContext) -> Outcome:
    if outcome.status is ResultStatus.FAILED and outcome.error_code is None and (failed := _failed(summary)):
        outcome = replace(outcome, error_message=failed)
    try:
        return replace(outcome, result=canonical_result(summary))
    except ValueError:
        note = f"chiffon: the summary of {len(summary)} hosts has more than {MAX_RESULT_BYTES} bytes and is left out\n"
        await context.write(Stream.STDERR, note.encode())
        return outcome


def _failed(summary: Summary) -> str:
    """Say which hosts failed and which were not reached."""
    parts = {"The playbook failed on": "failed", "It did not reach": "unreachable"}
    named = {text: [host for host, counts in summary.items() if counts.get(name)] for text, name in parts.items()}
    return " ".join(f"{text} {_named(hosts)}." for text, hosts in named.items() if hosts)


def _named(hosts: list[str]) -> str:
    more = len(hosts) - MOST_NAMED
    return ", ".join(hosts[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
