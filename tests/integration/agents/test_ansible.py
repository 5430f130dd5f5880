"""Playbooks run by the real Ansible, against this host."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.attempts.stopping import StopSignal
from agents.executors.ansible import AnsibleExecutor, read_summary, with_summary
from agents.executors.base import Host, Outcome
from agents.executors.enclosure import OPEN
from agents.executors.enforcement import CannotConfine, probe
from agents.processes.keepers import Keepers
from common.confinement import UNCONFINED, Confinement
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream
from common.work import SUMMARY_FILE
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.services import packages
from tests.unit.agents.executing import Output, execute, make_context
from tests.unit.agents.test_process import is_gone

PROGRAMS = Path(sys.executable).parent
COUNTS = {"ok": 0, "changed": 0, "failed": 0, "unreachable": 0, "skipped": 0, "rescued": 0, "ignored": 0}

CONFIGURATION = """
[defaults]
interpreter_python = {python}
inventory = hosts
[ssh_connection]
ssh_executable = {folder}/ssh
"""
HOSTS = """
one ansible_connection=local
two ansible_connection=local
gone ansible_connection=ssh ansible_host=127.0.0.1
"""
SITE = """
- hosts: all
  gather_facts: false
  tasks:
    # Without a module: each costs half a second of the processor.
    - name: make a file
      ansible.builtin.raw: >-
        test -e {{ file }} || { printf %s {{ content | default('nothing') | quote }} > {{ file }} && echo made; }
      vars: {file: "{{ folder }}/{{ inventory_hostname }}"}
      register: done
      changed_when: "'made' in done.stdout"
      tags: [make]
    - name: fail on some
      ansible.builtin.fail: {msg: so it was asked for}
      when: inventory_hostname in failing | default([])
    - name: say something
      ansible.builtin.debug: {msg: "hello {{ content | default('nothing') }}"}
      tags: [say]
"""

# With a module, which Ansible puts into a directory of the host and runs there.
MODULE = """
- hosts: one
  gather_facts: false
  tasks:
    - ansible.builtin.file: {path: "{{ folder }}/{{ inventory_hostname }}", state: directory}
"""


def counts(**given: int) -> dict[str, int]:
    return {**COUNTS, **given}


@pytest.fixture
def playbooks(tmp_path: Path) -> Path:
    folder = tmp_path / "playbooks"
    folder.mkdir()
    (folder / "ansible.cfg").write_text(CONFIGURATION.format(python=sys.executable, folder=folder))
    (folder / "hosts").write_text(HOSTS)
    (folder / "site.yml").write_text(SITE)
    (folder / "module.yml").write_text(MODULE)
    # What ssh says by its exit status when it does not get there.
    ssh = folder / "ssh"
    ssh.write_text("#!/bin/sh\necho 'Connection refused' >&2\nexit 255\n")
    ssh.chmod(0o755)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Where the playbook makes its files."""
    folder = tmp_path / "made"
    folder.mkdir()
    return folder


class Runs:
    """Runs playbooks without an agent. `output` is what the last one wrote."""

    def __init__(self, keepers: Keepers, playbooks: Path, folder: Path) -> None:
        self.output = Output()
        self.stop = StopSignal()
        self.enclosure = OPEN
        self.keepers = keepers
        self._playbooks = playbooks
        self._folder = folder

    async def __call__(self, playbook: str = "site.yml", **parameters: Any) -> Outcome:
        executor = AnsibleExecutor.offer(Host(self._playbooks))
        assert executor is not None
        workspace = self._folder / "work"
        workspace.mkdir()
        environment = {"PATH": os.environ["PATH"], "HOME": str(self._folder)}
        context = make_context(
            workspace,
            self.keepers,
            self.output,
            inherited=environment,
            stop=self.stop,
            enclosure=self.enclosure,
        )
        return await execute(executor, {"playbook": playbook, **parameters}, context)


@pytest.fixture
async def run(playbooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runs]:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    with Keepers() as keepers:
        yield Runs(keepers, playbooks, tmp_path)


async def test_a_run_returns_what_became_of_each_host_also_where_it_changed_nothing(run: Runs, made: Path) -> None:
    (made / "two").write_text("of an earlier run")

    outcome = await run(limit="one,two", extra_vars={"folder": str(made)})

    assert (outcome.status, outcome.exit_code) == (ResultStatus.COMPLETED, 0), run.output.text
    assert outcome.result == {"one": counts(ok=2, changed=1, skipped=1), "two": counts(ok=2, skipped=1)}
    assert {path.name: path.read_text() for path in made.iterdir()} == {"one": "nothing", "two": "of an earlier run"}


async def test_in_the_sandbox_a_playbook_has_its_directory_and_what_the_host_names(
    run: Runs, playbooks: Path, made: Path
) -> None:
    packages.install_missing()
    # The home of the user, where Ansible puts what it runs, is not there.
    (playbooks / "hosts").write_text("one ansible_connection=local ansible_remote_tmp=/tmp/ansible")
    python = {PROGRAMS.parent, Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    named = sorted(path for path in python if not path.is_relative_to("/usr"))
    host = await probe(
        run.keepers, run_as=None, least=UNCONFINED, workspaces=made.parent, readable=named, writable=[made]
    )
    if "sandbox" not in host.possible:
        with pytest.raises(CannotConfine, match="sandbox"):
            host.enclosure(Confinement(sandbox=True))
        return
    run.enclosure = host.enclosure(Confinement(sandbox=True))

    outcome = await run("module.yml", extra_vars={"folder": str(made)})

    assert outcome.result == {"one": counts(ok=1, changed=1)}, run.output.text
    assert [path.name for path in made.iterdir()] == ["one"]


async def test_a_host_that_fails_fails_the_work_and_is_named(run: Runs, made: Path) -> None:
    outcome = await run(limit="one,two", extra_vars={"folder": str(made), "failing": ["two"]})

    assert (outcome.status, outcome.exit_code) == (ResultStatus.FAILED, 2)
    assert outcome.error_message == "The playbook failed on two."
    assert outcome.retryable
    assert outcome.result == {"one": counts(ok=2, changed=1, skipped=1), "two": counts(ok=1, changed=1, failed=1)}


async def test_a_host_that_is_not_reached_is_told_apart(run: Runs, made: Path) -> None:
    outcome = await run(limit="one,gone", extra_vars={"folder": str(made)})

    assert (outcome.status, outcome.exit_code) == (ResultStatus.FAILED, 4)
    assert outcome.error_message == "It did not reach gone."
    assert outcome.result == {"one": counts(ok=2, changed=1, skipped=1), "gone": counts(unreachable=1)}


async def test_in_check_mode_nothing_is_changed(run: Runs, made: Path) -> None:
    outcome = await run("module.yml", check=True, extra_vars={"folder": str(made)})

    assert outcome.result == {"one": counts(ok=1, changed=1)}, run.output.text
    assert list(made.iterdir()) == []


async def test_tags_and_a_list_of_hosts_say_what_runs_where(run: Runs, playbooks: Path) -> None:
    outcome = await run(inventory="three,four,", limit="three", tags=["say"])

    assert outcome.result == {"three": counts(ok=1)}, run.output.text


async def test_another_inventory_of_the_directory_may_be_named_and_a_link_that_stays_inside_is_followed(
    run: Runs, playbooks: Path
) -> None:
    (playbooks / "test").mkdir()
    (playbooks / "test" / "hosts.yml").write_text("all: {hosts: {five: {ansible_connection: local}}}")
    (playbooks / "current.yml").symlink_to("site.yml")

    outcome = await run("current.yml", inventory="test/hosts.yml", tags=["say"])

    assert outcome.result == {"five": counts(ok=1)}, run.output.text


async def test_a_variable_is_never_a_template(run: Runs, made: Path) -> None:
    text = "{{ lookup('pipe', 'touch " + str(made / "witness") + "') }}"

    outcome = await run(limit="one", extra_vars={"folder": str(made), "content": text})

    assert outcome.status is ResultStatus.COMPLETED, run.output.text
    assert [path.name for path in made.iterdir()] == ["one"]
    assert (made / "one").read_text() == text


async def test_output_comes_while_the_playbook_runs(run: Runs, playbooks: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    (playbooks / "slow.yml").write_text(
        f"""
- hosts: one
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {{msg: first words}}
    - ansible.builtin.raw: until [ -e {go} ]; do sleep 0.1; done
"""
    )
    run.output.seen = lambda text: go.touch() if "first words" in text else None

    outcome = await run("slow.yml")

    assert outcome.result == {"one": counts(ok=2, changed=1)}, run.output.text


async def test_a_playbook_that_is_no_playbook_fails_without_a_summary(run: Runs, playbooks: Path) -> None:
    (playbooks / "bad.yml").write_text("no: playbook")

    outcome = await run("bad.yml")

    assert (outcome.status, outcome.result) == (ResultStatus.FAILED, None)
    assert "A playbook must be a list of plays" in run.output.of(Stream.STDERR)


async def test_a_playbook_that_takes_too_long_is_stopped(run: Runs, playbooks: Path) -> None:
    (playbooks / "slow.yml").write_text("- {hosts: one, gather_facts: false, tasks: [{raw: sleep 60}]}")

    outcome = await run("slow.yml", max_duration_seconds=2)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.TIMEOUT)


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({"playbook": "missing.yml"}, "playbook: there is no 'missing.yml' in the playbooks_dir of this agent."),
        ({"playbook": "out.yml"}, "playbook: 'out.yml' leads out of the playbooks_dir of this agent."),
        (
            {"playbook": "outside/site.yml"},
            "playbook: 'outside/site.yml' leads out of the playbooks_dir",
        ),
        (
            {"playbook": "site.yml", "inventory": "outside/hosts"},
            "inventory: 'outside/hosts' leads out of the playbooks_dir of this agent.",
        ),
        ({"playbook": "../site.yml"}, "must be a path in the agent's playbooks_dir"),
    ],
)
async def test_nothing_outside_the_directory_is_used(
    run: Runs, playbooks: Path, tmp_path: Path, parameters: dict[str, Any], problem: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("site.yml", "hosts"):
        (outside / name).write_text((playbooks / name).read_text())
    (playbooks / "out.yml").symlink_to(outside / "site.yml")
    (playbooks / "outside").symlink_to(outside)

    outcome = await run(**parameters)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.INVALID_REQUEST)
    assert problem in str(outcome.error_message)
    assert run.output.text == ""


@pytest.mark.parametrize("what", ["a link", "a second name", "a pipe", "a folder", "no summary", "nothing"])
def test_a_play_cannot_have_the_agent_read_a_file_of_others(tmp_path: Path, what: str) -> None:
    others = tmp_path / "others.json"
    others.write_text(json.dumps({"secret": {"number": 1}}))
    path = tmp_path / SUMMARY_FILE
    match what:
        case "a link":
            path.symlink_to(others)
        case "a second name":
            path.hardlink_to(others)
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "no summary":
            path.write_text('{"one": "ok"}')

    assert read_summary(path, os.geteuid()) is None


def test_a_file_of_another_user_is_no_summary(tmp_path: Path) -> None:
    path = tmp_path / SUMMARY_FILE
    path.write_text(json.dumps({"one": COUNTS}))

    assert read_summary(path, os.geteuid() + 1) is None
    assert read_summary(path, os.geteuid()) == {"one": COUNTS}


async def test_a_summary_that_is_too_large_is_left_out_and_said_so(tmp_path: Path) -> None:
    output = Output()
    summary = {f"host-{number}": COUNTS for number in range(1_000)}

    with Keepers() as keepers:
        outcome = await with_summary(
            Outcome(ResultStatus.COMPLETED, 0), summary, make_context(tmp_path, keepers, output)
        )

    assert outcome == Outcome(ResultStatus.COMPLETED, 0)
    assert "the summary of 1000 hosts has more than 65536 bytes" in output.of(Stream.STDERR)


def test_many_hosts_that_failed_are_counted(tmp_path: Path) -> None:
    summary = {f"web{number}": counts(failed=1) for number in range(1, 9)} | {"db": counts(unreachable=1)}

    with Keepers() as keepers:
        outcome = asyncio.run(
            with_summary(Outcome.failed("exit code 2", exit_code=2), summary, make_context(tmp_path, keepers, Output()))
        )

    assert outcome.error_message == (
        "The playbook failed on web1, web2, web3, web4, web5 and 3 more. It did not reach db."
    )


def test_it_is_offered_only_where_the_program_and_the_directory_are(
    playbooks: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    assert AnsibleExecutor.offer(Host()) is None
    assert AnsibleExecutor.offer(Host(playbooks / "missing")) is None
    assert AnsibleExecutor.offer(Host(playbooks)) is not None

    monkeypatch.setenv("PATH", str(playbooks))
    assert AnsibleExecutor.offer(Host(playbooks)) is None
    assert [vars(record)["reason"] for record in caplog.records] == [
        f"{playbooks / 'missing'} is no directory",
        "ansible-playbook is not installed",
    ]


async def test_an_agent_offers_playbooks_when_it_has_some(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, playbooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")

    await start_agent(playbooks_dir=playbooks)

    assert "ansible" in orchestrator.heartbeats[0].work_types


async def test_an_agent_without_the_program_does_not_offer_them(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, playbooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(playbooks))

    await start_agent(playbooks_dir=playbooks)

    assert "ansible" not in orchestrator.heartbeats[0].work_types


async def test_a_secret_reaches_the_play_and_nobody_else(
    orchestrator: ScriptedOrchestrator,
    start_agent: StartAgent,
    playbooks: Path,
    made: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CONTENT", "swordfish")
    await start_agent(playbooks_dir=playbooks, secrets={"content": {"env": "CONTENT"}}, keep_workspaces=True)

    task = await orchestrator.dispatch(
        "ansible",
        playbook="site.yml",
        limit="one",
        extra_vars={"folder": str(made), "content": {"secret": "content"}},
    )
    result = await orchestrator.ended(task)

    assert (result.status, result.result) == (ResultStatus.COMPLETED, {"one": counts(ok=2, changed=1, skipped=1)})
    assert (made / "one").read_text() == "swordfish"
    assert "hello [redacted]" in orchestrator.output(task)
    kept = [path for path in (made.parent / "agent").rglob("*") if path.is_file()]
    assert len(kept) > 3
    assert [path for path in kept if b"swordfish" in path.read_bytes()] == []


async def test_a_cancel_ends_the_play_and_all_that_it_started(
    orchestrator: ScriptedOrchestrator, start_agent: StartAgent, playbooks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}")
    noted = playbooks.parent / "pid"
    (playbooks / "slow.yml").write_text(
        f"- {{hosts: one, gather_facts: false, tasks: [{{raw: 'echo $$ > {noted}; exec sleep 1000'}}]}}"
    )
    await start_agent(playbooks_dir=playbooks)
    task = await orchestrator.dispatch("ansible", playbook="slow.yml")
    await eventually(lambda: noted.exists() and noted.read_text().strip())

    await orchestrator.cancel(task)

    assert (await orchestrator.ended(task)).status is ResultStatus.CANCELLED
    assert is_gone(int(noted.read_text()))


@pytest.mark.parametrize("name", ["other", "-oProxyCommand=touch made"])
async def test_no_variable_leads_ssh_to_another_host_or_gives_it_an_option(
    run: Runs, playbooks: Path, made: Path, name: str
) -> None:
    (playbooks / "ssh").write_text(f'#!/bin/sh\necho "$@" >> {made}/called\nexit 255\n')

    outcome = await run(limit="gone", extra_vars={"inventory_hostname": name})

    assert outcome.error_code is ErrorCode.INVALID_REQUEST, run.output.text
    assert not (made / "called").exists()
