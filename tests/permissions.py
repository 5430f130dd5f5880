"""Who may do what, written by hand: what each route demands, and what each role allows. Nothing here asks the product.

A new route, WebSocket or role fails a test until it stands here.
"""

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from common.rest.identities import Permission, Role

WEBSOCKET = "WEBSOCKET"


class Open(Enum):
    """What a route demands that needs no permission: no token at all, or any valid one."""

    STRANGERS = auto()
    ANY_CALLER = auto()


Demand = Permission | Open
# The method, or WEBSOCKET, and the path as it is declared.
Route = tuple[str, str]

DEMANDED: Mapping[Route, Demand] = MappingProxyType(
    {
        ("GET", "/health"): Open.STRANGERS,
        ("GET", "/ready"): Open.STRANGERS,
        ("GET", "/openapi.json"): Open.STRANGERS,
        ("GET", "/docs"): Open.STRANGERS,
        ("GET", "/docs/start.js"): Open.STRANGERS,
        ("GET", "/docs/swagger-ui.css"): Open.STRANGERS,
        ("GET", "/docs/swagger-ui-bundle.js"): Open.STRANGERS,
        ("GET", "/docs/favicon.png"): Open.STRANGERS,
        ("POST", "/api/v1/enrol"): Open.STRANGERS,
        ("GET", "/api/v1/whoami"): Open.ANY_CALLER,
        ("POST", "/api/v1/ws-ticket"): Open.ANY_CALLER,
        ("POST", "/api/v1/tokens/claim"): Open.ANY_CALLER,
        ("GET", "/api/v1/status/{task_id}"): Permission.READ,
        ("GET", "/api/v1/tasks"): Permission.READ,
        ("GET", "/api/v1/tasks/{task_id}/output"): Permission.READ,
        ("GET", "/api/v1/tasks/{task_id}/events"): Permission.READ,
        ("GET", "/api/v1/tasks/{task_id}/why"): Permission.READ,
        ("GET", "/api/v1/work-types"): Permission.READ,
        ("GET", "/api/v1/agents"): Permission.READ,
        ("GET", "/api/v1/agents/capacity"): Permission.READ,
        ("GET", "/api/v1/fan-outs/{fan_out_id}"): Permission.READ,
        ("GET", "/api/v1/dead-letters"): Permission.READ,
        ("GET", "/api/v1/dead-letters/{letter_id}"): Permission.READ,
        ("GET", "/api/queue/jobs"): Permission.READ,
        ("GET", "/api/queue/jobs/{job_id}"): Permission.READ,
        ("GET", "/ops/queue"): Permission.READ,
        ("GET", "/ops/executions"): Permission.READ,
        ("GET", "/api/v1/approvals"): Permission.READ,
        ("GET", "/api/v1/approvals/{approval_id}"): Permission.READ,
        ("POST", "/api/v1/approvals/{approval_id}/comment"): Permission.READ,
        ("GET", "/api/v1/policy"): Permission.READ,
        ("GET", "/api/v1/runs"): Permission.READ,
        ("GET", "/api/v1/runs/{run_id}"): Permission.READ,
        ("GET", "/api/v1/runs/{run_id}/artifacts"): Permission.READ,
        ("GET", "/orchestrator/runs"): Permission.READ,
        ("GET", "/orchestrator/runs/{run_id}"): Permission.READ,
        ("GET", "/orchestrator/runs/{run_id}/artifacts"): Permission.READ,
        ("GET", "/api/v1/tasks/{task_id}/artifacts"): Permission.READ,
        ("GET", "/api/v1/artifacts/{artifact_id}"): Permission.READ,
        ("GET", "/artifacts/{artifact_id}/{name:path}"): Permission.READ,
        (WEBSOCKET, "/ws/{trace_id}"): Permission.READ,
        (WEBSOCKET, "/api/v1/ws"): Permission.READ,
        ("POST", "/api/v1/dispatch"): Permission.DISPATCH,
        ("POST", "/api/v1/dispatch/batch"): Permission.DISPATCH,
        ("POST", "/api/v1/cancel/{task_id}"): Permission.DISPATCH,
        ("POST", "/api/v1/traces/{trace_id}/cancel"): Permission.DISPATCH,
        ("POST", "/api/v1/tasks/{task_id}/rerun"): Permission.DISPATCH,
        ("POST", "/api/queue/jobs"): Permission.DISPATCH,
        ("POST", "/api/queue/jobs/{job_id}/cancel"): Permission.DISPATCH,
        ("POST", "/api/v1/approvals"): Permission.DISPATCH,
        ("POST", "/api/v1/policy/explain"): Permission.DISPATCH,
        ("POST", "/api/v1/runs"): Permission.DISPATCH,
        ("POST", "/api/v1/runs/{run_id}/cancel"): Permission.DISPATCH,
        ("POST", "/api/v1/runs/{run_id}/retry"): Permission.DISPATCH,
        ("POST", "/orchestrator/runs"): Permission.DISPATCH,
        ("POST", "/orchestrator/runs/{run_id}/retry"): Permission.DISPATCH,
        ("POST", "/api/v1/uploads"): Permission.DISPATCH,
        ("POST", "/api/v1/runs/{run_id}/abandon"): Permission.OPERATE,
        ("POST", "/api/v1/agents/{agent}/pause"): Permission.OPERATE,
        ("POST", "/api/v1/agents/{agent}/drain"): Permission.OPERATE,
        ("POST", "/api/v1/agents/{agent}/resume"): Permission.OPERATE,
        ("DELETE", "/api/v1/agents/{agent}"): Permission.OPERATE,
        ("POST", "/api/v1/dead-letters/replay"): Permission.OPERATE,
        ("POST", "/api/v1/dead-letters/discard"): Permission.OPERATE,
        ("POST", "/api/v1/dead-letters/{letter_id}/replay"): Permission.OPERATE,
        ("POST", "/api/v1/dead-letters/{letter_id}/discard"): Permission.OPERATE,
        ("POST", "/api/v1/runs/{run_id}/approve"): Permission.APPROVE,
        ("POST", "/api/v1/runs/{run_id}/reject"): Permission.APPROVE,
        ("POST", "/orchestrator/runs/{run_id}/approvals"): Permission.APPROVE,
        ("POST", "/api/v1/approvals/{approval_id}/approve"): Permission.APPROVE,
        ("POST", "/api/v1/approvals/{approval_id}/reject"): Permission.APPROVE,
        ("GET", "/api/v1/audit"): Permission.AUDIT,
        ("POST", "/api/v1/identities"): Permission.ADMINISTER,
        ("GET", "/api/v1/identities"): Permission.ADMINISTER,
        ("POST", "/api/v1/identities/{principal_id}/disable"): Permission.ADMINISTER,
        ("POST", "/api/v1/tokens"): Permission.ADMINISTER,
        ("GET", "/api/v1/tokens"): Permission.ADMINISTER,
        ("POST", "/api/v1/tokens/{token_id}/revoke"): Permission.ADMINISTER,
        ("POST", "/api/v1/enrolments"): Permission.ADMINISTER,
        ("POST", "/api/queue/jobs/claim"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/heartbeat"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/progress"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/output"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/steps"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/artifacts"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/files"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/complete"): Permission.WORK,
        ("POST", "/api/queue/jobs/{job_id}/fail"): Permission.WORK,
        ("POST", "/api/queue/workers/{worker_id}/heartbeat"): Permission.WORK,
    }
)

ALLOWED: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.VIEWER: frozenset({Permission.READ}),
        Role.OPERATOR: frozenset({Permission.READ, Permission.DISPATCH, Permission.OPERATE}),
        Role.APPROVER: frozenset({Permission.READ, Permission.APPROVE}),
        Role.ADMIN: frozenset(
            {Permission.READ, Permission.DISPATCH, Permission.OPERATE, Permission.AUDIT, Permission.ADMINISTER}
        ),
        Role.AGENT: frozenset({Permission.WORK}),
    }
)
# What people and services can be entrusted with together: all but the work of an agent.
PEOPLE = (Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN)
