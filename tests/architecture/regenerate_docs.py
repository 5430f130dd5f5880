"""Write the generated parts of the pages below docs/: `python -m tests.architecture.regenerate_docs`.

A part stands between `<!-- generated: NAME -->` and `<!-- end of NAME -->`; what is around it is written by hand.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from agents.settings import AgentSettings
from chiffon.cli.app import COMMANDS
from chiffon.rabbitmq.settings import RabbitmqSettings
from common import messages, orders
from common.compose import HealthCheck, RepairResult
from common.config import SharedSettings
from common.plans.model import Condition, Plan, Repeat, Step, Undo
from common.policy.model import ApprovalDemand
from common.protocol import MessageEnvelope, WorkResults
from common.services import Gate, Service
from common.signing import claims
from common.unreadable import Unreadable
from common.work import PARAMETERS
from orchestrator.settings import OrchestratorSettings
from tests.architecture import doc_tables, timelines
from tests.architecture.source import ROOT

DOCS = ROOT / "docs"
PART = re.compile(r"<!-- generated: (?P<name>\S+) -->\n(?P<text>.*?)<!-- end of (?P=name) -->", re.DOTALL)

PAYLOADS = (
    messages.Credit,
    messages.Grant,
    messages.GrantedTask,
    messages.WorkRequest,
    messages.WorkStatus,
    messages.OutputChunk,
    messages.StepReport,
    messages.ArtifactPiece,
    messages.WantFile,
    messages.WorkResult,
    WorkResults,
    messages.StatusUpdate,
    messages.Resources,
    messages.Renew,
    messages.Lease,
    orders.Control,
    orders.TrustKeys,
    messages.CancelTask,
    messages.Renewed,
    messages.Stored,
    orders.Heard,
    orders.Pause,
    orders.Drain,
    orders.Resume,
    orders.Leave,
    orders.StepsStored,
    orders.Settle,
    orders.ArtifactsStored,
    orders.FilePiece,
    Unreadable,
    messages.Probe,
)
CLAIMS = (claims.GrantClaims, claims.SignedTask, claims.KeyClaims, claims.NamedKey, claims.CheckpointClaims)
BODIES = (
    "DispatchRequest",
    "Hints",
    "DispatchResponse",
    "BatchRequest",
    "BatchResult",
    "TaskStatus",
    "Capacity",
    "AgentCapacity",
    "FanOut",
    "FanOutTask",
    "TaskPage",
    "OutputPage",
    "Event",
    "EventPage",
    "Why",
    "Blocker",
    "WhyAgent",
    "KnownWorkType",
    "OfferingAgent",
    "Agent",
    "Resources",
    "PauseRequest",
    "NoteRequest",
    "CancelResponse",
    "CancelledTrace",
    "RerunRequest",
    "DeadLetter",
    "DeadLetterDetail",
    "DeadLetterPage",
    "SettleRequest",
    "Settled",
    "ApprovalRequest",
    "ApprovalDetail",
    "Vote",
    "Comment",
    "PolicyInForce",
    "Explained",
    "RuleFinding",
    "AuditPage",
    "RunRequest",
    "RunSummary",
    "RunPage",
    "Run",
    "RunStep",
    "InnerStep",
    "RunRetry",
    "RunApprove",
    "RunReject",
    "Artifact",
    "Upload",
    "RepairRequest",
    "Repair",
    "RepairDetail",
    "RepairPlan",
    "RepairPlanStep",
    "RepairStep",
    "RepairArtifact",
    "RepairApproval",
    "Approver",
    "RepairRetry",
    "ErrorResponse",
    "FieldProblem",
    "Readiness",
    "CheckResult",
)
LISTS = {
    "tasks": "/api/v1/tasks",
    "output": "/api/v1/tasks/{task_id}/output",
    "events": "/api/v1/tasks/{task_id}/events",
    "agents": "/api/v1/agents",
    "dead-letters": "/api/v1/dead-letters",
    "approvals": "/api/v1/approvals",
    "runs": "/api/v1/runs",
    "repairs": "/orchestrator/runs",
    "audit": "/api/v1/audit",
}

SUBCOMMANDS = {
    "db": ("upgrade", "current"),
    "keys": ("init", "list", "rotate", "retire"),
    "agent": ("enrol",),
    "agents": ("enrol", "capacity", "pause", "drain", "resume", "forget"),
    "identities": ("create", "disable"),
    "tokens": ("create", "claim", "revoke", "bootstrap"),
    "approvals": ("list", "show", "approve", "reject", "comment", "ask"),
    "policy": ("check", "explain"),
    "dead-letters": ("list", "show", "replay", "discard"),
    "runs": (
        "start",
        "check",
        "repair",
        "list",
        "show",
        "watch",
        "cancel",
        "approve",
        "reject",
        "retry",
        "abandon",
        "artifacts",
        "download",
        "upload",
    ),
    "services": ("check", "list"),
    "audit": ("verify", "query"),
    "rabbitmq": ("setup", "add-agent", "rotate-agent", "remove-agent"),
}

Parts = Mapping[str, Callable[[], str]]

PAGES: Mapping[str, Parts] = {
    "reference/settings.md": {
        "shared": partial(doc_tables.settings, SharedSettings),
        "orchestrator": partial(doc_tables.settings, OrchestratorSettings),
        "agent": partial(doc_tables.settings, AgentSettings),
        "rabbitmq": partial(doc_tables.settings, RabbitmqSettings),
    },
    "reference/lifecycle.md": {"diagram": doc_tables.lifecycle},
    "reference/errors.md": {"codes": doc_tables.error_codes},
    "reference/cli.md": {
        "commands": doc_tables.commands,
        **{name: partial(doc_tables.command_help, name) for name in COMMANDS},
        **{
            f"{group}-{name}": partial(doc_tables.command_help, group, name)
            for group, names in SUBCOMMANDS.items()
            for name in names
        },
    },
    "reference/conformance.md": {"cases": doc_tables.cases},
    "reference/rest-api.md": {
        "endpoints": doc_tables.endpoints,
        **{f"query-{name}": partial(doc_tables.query, path) for name, path in LISTS.items()},
        **{name: partial(doc_tables.body, name) for name in BODIES},
    },
    "reference/messages.md": {
        "queues": doc_tables.queues,
        "envelope": partial(doc_tables.fields, MessageEnvelope),
        **{payload.__name__: partial(doc_tables.fields, payload) for payload in PAYLOADS},
    },
    "reference/signatures.md": {model.__name__: partial(doc_tables.fields, model) for model in CLAIMS},
    "reference/work-types.md": {name: partial(doc_tables.fields, model) for name, model in PARAMETERS.items()},
    "reference/plans.md": {
        model.__name__: partial(doc_tables.fields, model)
        for model in (Plan, Step, Repeat, Undo, Condition, ApprovalDemand)
    },
    "reference/services.md": {
        model.__name__: partial(doc_tables.fields, model) for model in (Service, HealthCheck, Gate, RepairResult)
    },
    "explanation/timelines.md": {
        "lost-agent": timelines.lost_agent,
        "agent-cut-off": timelines.agent_cut_off,
        "lost-broker": timelines.lost_broker,
        "silent-connections": timelines.silent_connections,
        "kept-leases": timelines.kept_leases,
        "broker-back": timelines.broker_back,
        "harmless-outage": timelines.harmless_outage,
    },
}


def regenerated(page: str, text: str) -> str:
    """Return a page with its generated parts as the code has them; raises ValueError when one has no place."""
    parts = PAGES[page]
    found = [match["name"] for match in PART.finditer(text)]
    if sorted(found) != sorted(parts):
        missing, unknown = set(parts) - set(found), set(found) - set(parts)
        raise ValueError(f"{page}: parts without a place: {sorted(missing)}; places without a part: {sorted(unknown)}")

    def fill(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- generated: {name} -->\n{parts[name]()}\n<!-- end of {name} -->"

    return PART.sub(fill, text)


def path_of(page: str) -> Path:
    return DOCS / page


def main() -> None:
    """Write every page that is not as the code has it."""
    for page in PAGES:
        path = path_of(page)
        before = path.read_text(encoding="utf-8")
        after = regenerated(page, before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
