"""`chiffon policy`: check a file of rules, and say what they mean for some work. Nothing is asked of any server."""

from pathlib import Path
from typing import Any

from cyclopts import App

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import AS_TABLE, Printing
from chiffon.cli.outcome import Exit, Usage
from chiffon.cli.parameters import read_text
from common.json_text import NotJson, read_json
from common.policy.model import Refused, Work
from common.policy.read import Policy, read_policy
from common.policy.rules import decide, explain
from common.visible import visible

app = App(
    name="policy",
    group_commands="Commands",
    help="Check a file of rules, and say which rule decides about some work.",
    result_action="return_value",
)


@app.command
def check(file: Path, /, *, printing: Printing = AS_TABLE) -> int:
    """Check a file of rules; every mistake is named by its rule and field.

    ```
    chiffon policy check policy.toml
    ```

    Prints the version that tasks and approvals will name. Exit status 1: the orchestrator would not start with it.

    Parameters
    ----------
    file
        The policy, in TOML.
    """
    policy = read_policy(file)
    if printing.is_json:
        print_json({"version": policy.id, "rules": [rule.name for rule in policy.rule]})
    else:
        put(f"{policy.id}: {len(policy.rule)} rules")
    return Exit.OK


@app.command(name="explain")
def explain_(work: str, /, *, policy: Path | None = None, printing: Printing = AS_TABLE) -> int:
    """Say which rule decides about some work, and why the ones before it do not.

    ```
    chiffon policy explain work.json --policy policy.toml
    ```

    Exit status 0: it may run, perhaps once it is approved; 10: it is refused. A running orchestrator says the same of
    its own policy at `POST /api/v1/policy/explain`, to callers who may dispatch.

    Parameters
    ----------
    work
        A file with the body of a dispatch: work_type, parameters, hints; and agent_type, the pool that would run it,
        unless the hints name it or it is infra. `-` reads standard input.
    policy
        The policy, in TOML; without it, that of the orchestrator's settings, or the built-in one.
    """
    asked = _work(work)
    rules = _policy(policy)
    decision = decide(rules, asked)
    findings = explain(rules, asked)
    refused = isinstance(decision, Refused)
    if printing.is_json:
        print_json(
            {
                "allowed": not refused,
                "rule": decision.rule,
                "policy_version": decision.policy_version,
                "reason": decision.reason if isinstance(decision, Refused) else None,
                "effect": None if isinstance(decision, Refused) else decision.effect,
                "approvers": None
                if isinstance(decision, Refused) or decision.approval is None
                else decision.approval.approvers,
                "findings": [
                    {"rule": one.rule, "mismatches": list(one.mismatches), "violations": list(one.violations)}
                    for one in findings
                ],
            }
        )
        return Exit.WORK_FAILED if refused else Exit.OK
    for one in findings:
        if not one.matches:
            put(f"no   {visible(one.rule)}: {visible('; '.join(one.mismatches))}")
        elif one.violations:
            put(f"NO   {visible(one.rule)} matches: {visible('; '.join(one.violations))}")
        else:
            put(f"yes  {visible(one.rule)} matches")
    if isinstance(decision, Refused):
        say(visible(decision.reason))
        return Exit.WORK_FAILED
    needs = ""
    if (demand := decision.approval) is not None:
        needs = f", once {demand.approvers} of {' or '.join(demand.roles)} say yes"
    by = f"by the rule {decision.rule!r} of policy {decision.policy_version}"
    put(f"It may run {by}, effect {decision.effect}{needs}.")
    return Exit.OK


def _policy(path: Path | None) -> Policy:
    if path is not None:
        return read_policy(path)
    from orchestrator.policy.service import open_policy
    from orchestrator.settings import OrchestratorSettings

    return open_policy(OrchestratorSettings.load().policy_file).policy


def _work(source: str) -> Work:
    try:
        found = read_json(read_text(source))
    except NotJson as error:
        raise Usage(f"{source}: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("work_type"), str):
        raise Usage(f"{source} must hold a JSON object with a work_type, as the body of a dispatch")
    hints = _object(found, "hints", source)
    agent_type = found.get("agent_type") or hints.get("agent_type") or "infra"
    return Work(found["work_type"], str(agent_type), _object(found, "parameters", source), hints)


def _object(found: dict[str, Any], name: str, source: str) -> dict[str, Any]:
    value = found.get(name, {})
    if not isinstance(value, dict):
        raise Usage(f"{name} in {source} must be a JSON object")
    return value
