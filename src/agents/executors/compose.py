"""Repair a service of a Docker Compose project: patch, build, restart, verify, or take all of it back."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.base import ExecutionContext, Executor, Host, Outcome
from agents.executors.environment import inherited
from agents.processes.lookup import find
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.repairs.docker import COMPOSE_COMMANDS, DOCKER, Versions
from agents.repairs.failures import StepFailed
from agents.repairs.git import PROGRAM as GIT
from agents.repairs.git import Git
from agents.repairs.log import Secrets, TaskOutput
from agents.repairs.programs import Programs
from agents.repairs.rules import ending_of, secret_values, stage_resumed, steps_of, why_not_resumed
from agents.repairs.state import POSITIONS, ROLLBACK, Unit, key_of
from agents.repairs.store import ServiceBusy, StateUnreadable, Store
from agents.repairs.unit import carry_out, hand_over
from agents.repairs.work import Commands, Work
from common.clock import SystemClock
from common.compose import COMPOSE_REPAIR, ComposeRepairParameters
from common.errors import ErrorCode
from common.messages import ResultStatus, StepStatus

log = logging.getLogger(__name__)

TRACE_VARIABLE = "CHIFFON_TRACE_ID"
# By these the programs of docker find the daemon, and the protocol to speak with it.
DOCKER_VARIABLES = (
    "BUILDKIT_PROGRESS",
    "COMPOSE_DOCKER_CLI_BUILD",
    "DOCKER_API_VERSION",
    "DOCKER_BUILDKIT",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
)
# Where the program `docker` looks for `docker compose`, beside the home directory of its user.
PLUGIN_FOLDERS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
PLUGIN = "docker-compose"

STOPPED: Mapping[StopReason, str] = {
    StopReason.CANCELLED: "It was cancelled.",
    StopReason.LEASE_LOST: "The agent lost its lease.",
    StopReason.AGENT_STOPPING: "The agent was stopped.",
    StopReason.NO_SLOT: "The agent had no slot for it.",
}


class _Refused(Exception):
    """The repair does not begin; the text says why."""


class ComposeExecutor(Executor[ComposeRepairParameters]):
    """Owns the end of what it begins: once anything was changed, the service is verified or as before, whatever becomes
    of the lease, the orchestrator or this process.
    """

    kind: ClassVar[str] = COMPOSE_REPAIR
    parameters = ComposeRepairParameters
    watches_stop: ClassVar[bool] = True
    owns_its_end: ClassVar[bool] = True

    def __init__(self, root: Path, store: Store, *, compose: str = "") -> None:
        self._root = root
        self._store = store
        self._compose = compose
        self._versions: Versions = {}

    @classmethod
    def offer(cls, host: Host) -> Self | None:
        if host.compose_root is None or host.state_dir is None:
            return None
        missing = [program for program in (GIT, DOCKER) if find(program) is None]
        compose = _compose_of_host()
        if compose is None:
            missing.append("docker compose")
        if missing or not host.compose_root.is_dir():
            reason = f"{host.compose_root} is no directory" if not missing else f"not installed: {', '.join(missing)}"
            log.warning("executor.not_offered", extra={"work_type": cls.kind, "reason": reason})
            return None
        return cls(host.compose_root, Store.below(host.state_dir), compose=compose or "")

    def labels(self) -> Mapping[str, Any]:
        return {"compose": self._compose}

    async def carry_out(self, parameters: ComposeRepairParameters, context: ExecutionContext) -> Outcome:
        problem = _not_enclosed(context)
        if problem is not None:
            _report_refusal(parameters, context, problem)
            return Outcome.failed(problem, code=ErrorCode.CONFINEMENT_NOT_POSSIBLE)
        try:
            await asyncio.to_thread(self._store.open)
            with self._store.holding(_key_of(parameters)):
                async with TaskOutput(context.write, context.stop) as output:
                    return await self._repair(parameters, context, output)
        except ServiceBusy:
            refusal = f"This host works on the service {parameters.service!r} already."
        except (_Refused, StateUnreadable, StepFailed) as reason:
            refusal = str(reason)
        _report_refusal(parameters, context, refusal)
        return Outcome.failed(refusal)

    async def _repair(
        self, parameters: ComposeRepairParameters, context: ExecutionContext, output: TaskOutput
    ) -> Outcome:
        known = await asyncio.to_thread(self._store.read, _key_of(parameters))
        if known is not None and known.end is None:
            raise _Refused(f"This host still puts the service in order after the task {known.task_id}.")
        goes_on = parameters.patch is None and parameters.resumes is not None
        if goes_on and (reason := why_not_resumed(parameters, known)) is not None:
            raise _Refused(reason)
        resumed = known if goes_on else None
        unit = _new_unit(parameters, context, known, resumed)
        work = self._work(parameters, context, unit, output)
        await asyncio.to_thread(work.secrets.learn, work.workspace)
        if known is not None:
            await self._make_room(known, work, is_resumed=resumed is not None)
        await asyncio.to_thread(self._store.clear, unit.key, keeps_contents=resumed is not None)
        await work.note()
        steps = steps_of(parameters, resumed)
        unit = await carry_out(work, steps, lambda: _why_stopped(context.stop))
        return outcome_of(unit, context.stop)

    async def _make_room(self, known: Unit, work: Work, *, is_resumed: bool) -> None:
        """Let go of what the last repair of the service has left, but for what is gone on with."""
        if not known.handed_over:
            # What it says of its end is none of this attempt's steps.
            await hand_over(replace(work, unit=known, step=_untold, keep=_not_kept, output=None))
        if not is_resumed and await asyncio.to_thread(work.tree.is_dir):
            await Git(work.lasting, Path(known.profile.workspace)).remove_worktree(work.tree)

    def _work(
        self, parameters: ComposeRepairParameters, context: ExecutionContext, unit: Unit, output: TaskOutput
    ) -> Work:
        environment = {**context.inherited, **unit.docker}
        for value in secret_values(environment):
            context.hide(value)
        bound = Programs(
            context.keepers,
            {**environment, **context.ids},
            self._store.folder,
            limits=context.enclosure.limits,
            stop=context.stop,
            kill_grace=context.kill_grace_seconds,
            started=context.process_started,
        )
        return Work(
            self._store,
            unit,
            programs=bound,
            lasting=replace(bound, starter=context.lasting, stop=None),
            secrets=Secrets(environment),
            step=context.step,
            keep=context.keep,
            root=self._root,
            output=output,
            patch=parameters.patch,
            commands=_commands(context),
            hidden=context.hidden,
            is_shown=parameters.steps[-1] != "verify",
            versions=self._versions,
        )


def _untold(*_words: object, **_named: object) -> None:
    """Report a step to nobody."""


async def _not_kept(*_file: object) -> None:
    """Keep a file nowhere."""


def _key_of(parameters: ComposeRepairParameters) -> str:
    return key_of(parameters.profile.project, parameters.service)


def _compose_of_host() -> str | None:
    """Return which compose this host has, the newer one first."""
    home = Path.home() / ".docker" / "cli-plugins"
    if any((Path(folder) / PLUGIN).is_file() for folder in (home, *PLUGIN_FOLDERS)):
        return " ".join(COMPOSE_COMMANDS[0])
    return None if find(PLUGIN) is None else PLUGIN


def _not_enclosed(context: ExecutionContext) -> str | None:
    """Say which walls cannot be built around a repair, whose programs must reach docker and the workspace."""
    confinement = context.enclosure.confinement
    asked = [name for name in ("network_off", "sandbox") if getattr(confinement, name)]
    if not asked:
        return None
    return f"A repair needs the docker and git of this host, so it cannot be shut in by {', '.join(asked)}."


def _commands(context: ExecutionContext) -> Commands:
    user = context.enclosure.user
    environment = {**context.inherited, **context.ids}
    if user is None:
        return Commands(environment)
    own = {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    return Commands({**environment, **own}, (user.groups, user.gid, user.uid))


def _new_unit(
    parameters: ComposeRepairParameters, context: ExecutionContext, known: Unit | None, resumed: Unit | None
) -> Unit:
    """Return a repair that begins, with what is kept of the one that it goes on with."""
    trace = context.ids.get(TRACE_VARIABLE)
    unit = Unit(
        run_id=parameters.run_id,
        task_id=UUID(context.ids[TASK_VARIABLE]),
        attempt=int(context.ids[ATTEMPT_VARIABLE]),
        trace_id=None if trace is None else UUID(trace),
        service=parameters.service,
        profile=parameters.profile,
        begun_at=SystemClock().now(),
        docker=inherited(DOCKER_VARIABLES),
        left={} if known is None else known.leaves,
    )
    if resumed is None:
        return unit
    stage = stage_resumed(parameters.steps[0])
    return unit.changed(
        stage=stage,
        compose=resumed.compose,
        compose_major=resumed.compose_major,
        base_commit=resumed.base_commit,
        base_tree=resumed.base_tree,
        diff_sha256=resumed.diff_sha256,
        shown=resumed.shown,
        files=resumed.files,
        candidate=resumed.candidate,
    )


def _why_stopped(stop: StopSignal) -> str:
    return "It was stopped." if stop.reason is None else STOPPED[stop.reason]


def _report_refusal(parameters: ComposeRepairParameters, context: ExecutionContext, reason: str) -> None:
    """Say that the repair did not begin, so that nobody waits for its end."""
    now, first = SystemClock().now(), parameters.steps[0]
    context.step(POSITIONS[first], first, StepStatus.FAILED, reason, now, now)
    context.step(POSITIONS[ROLLBACK], ROLLBACK, StepStatus.SKIPPED, "Nothing was begun.", now, now)


def outcome_of(unit: Unit, stop: StopSignal) -> Outcome:
    """Return how the attempt ended."""
    status, message = ending_of(unit)
    result = None if unit.result is None else unit.result.model_dump(mode="json")
    if status is ResultStatus.FAILED and stop.reason is StopReason.CANCELLED:
        return Outcome(ResultStatus.CANCELLED, error_message=message, result=result)
    return Outcome(status, error_message=message, result=result)
