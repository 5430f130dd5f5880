"""The REST endpoints of the policy: which is in force, and what it says about some work."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Request

from common.policy.model import Work
from common.rest.identities import Permission
from common.rest.policy import Explained, ExplainRequest, PolicyInForce
from orchestrator.http.errors import ERROR_CONTENT
from orchestrator.http.routes import Router
from orchestrator.identities.access import READ, requires
from orchestrator.policy.answers import explained, in_force
from orchestrator.policy.service import PolicyService

Responses = dict[int | str, dict[str, Any]]
WorkOf = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Work]

UNKNOWN: Responses = {
    400: {"content": ERROR_CONTENT, "description": "The work type is not known (1001)."},
    422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
}

router = Router(
    prefix="/api/v1/policy",
    tags=["policy"],
    responses={500: {"content": ERROR_CONTENT}, 503: {"content": ERROR_CONTENT}},
)


async def get_policies(request: Request) -> PolicyService:
    """Return the policy service of the running app."""
    service: PolicyService = request.app.state.policy
    return service


async def get_work_of(request: Request) -> WorkOf:
    """Return what routes and checks work in the running app, also of repairs: it is only asked about."""
    return partial(request.app.state.orchestrator_service.work_of, is_repair=True)


Policies = Annotated[PolicyService, Depends(get_policies)]


@router.get("", dependencies=[READ], summary="The policy in force")
async def get_policy(policies: Policies) -> PolicyInForce:
    """Return the rules by which work may run, and which version of them holds."""
    return in_force(policies.policy, policies.source)


@router.post(
    "/explain",
    dependencies=[requires(Permission.DISPATCH)],
    summary="What the policy says about work",
    responses={403: {"content": ERROR_CONTENT, "description": "The caller may not dispatch (4003)."}, **UNKNOWN},
)
async def explain_policy(
    order: ExplainRequest, policies: Policies, work_of: Annotated[WorkOf, Depends(get_work_of)]
) -> Explained:
    """Say which rule decides about some work, and why the rules before it do not. Nothing is dispatched.

    The caller needs the permission `dispatch`.
    """
    work = work_of(order.work_type, order.parameters, order.hints.model_dump(mode="json", exclude_none=True))
    return explained(*policies.explain(work))
