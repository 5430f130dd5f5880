"""What is no request about a run: each is refused in one sentence that names the field, and nothing comes of it."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from common.http_client import client_options
from tests.integration.runs.conftest import Site, echo, plan

pytestmark = pytest.mark.xdist_group("runs/bad_requests")

RUNS = "/api/v1/runs"
ONE = echo("one")
HOLDS = {"value": 1, "equals": 1}


def with_step(**fields: Any) -> dict[str, Any]:
    return {"plan": plan({**ONE, **fields})}


STARTS: dict[str, tuple[dict[str, Any], str]] = {
    "no plan": ({}, "body.plan: Field required"),
    "a plan that is none": ({"plan": []}, "body.plan: must be an object"),
    "no steps": ({"plan": {}}, "body.plan.steps: Field required"),
    "a step that is none": ({"plan": {"steps": ["one"]}}, "body.plan.steps.0: must be an object"),
    "another field": (with_step(kind="x"), "body.plan.steps.0.kind: is not known here; allowed: approval, "),
    "a name": (with_step(name="One Step"), "body.plan.steps.0.name: String should match pattern"),
    "no parameters": (with_step(parameters=None), "body.plan.steps.0.parameters: must be an object"),
    "a parameter": (with_step(parameters={"massage": "x"}), "steps[0].parameters.massage: is not known here"),
    "a large number": (with_step(parameters={"message": 2**60}), "message: must not contain numbers beyond"),
    "NUL": (with_step(parameters={"message": "a\0"}), "message: must not contain the NUL character"),
    "a hint": (
        with_step(hints={"agent": 1}),
        "steps[0].hints.agent: is not known here (did you mean 'agent_id'?); allowed: agent_id",
    ),
    "needs itself": (with_step(needs=["one"]), "steps[0].needs: one → one is a circle"),
    "needs nothing that is": (with_step(needs=["two"]), "steps[0].needs[0]: 'two' is no step of this plan"),
    "when": (with_step(when=1), "body.plan.steps.0.when: must be 'succeeded', 'failed', 'not_failed', 'always'"),
    "may_fail": (with_step(may_fail=1), "body.plan.steps.0.may_fail: Input should be a valid boolean"),
    "rounds": (with_step(repeat={"until": HOLDS, "at_most": "2"}), "repeat.at_most: must be a number, without quotes"),
    "an undo": (with_step(undo={"work_type": "dance"}), "steps[0].undo.work_type: 'dance' is not known; allowed:"),
    "a role": (with_step(approval={"roles": ["boss"]}), "steps[0].approval.roles[0]: 'boss' is no role; allowed:"),
    "a reference": (with_step(parameters={"message": "${one}"}), "steps[0].parameters.message: '${one}' is no refere"),
    "an unknown input": (with_step(parameters={"message": "${inputs.x}"}), "refers to an input that is not given"),
    "10,000 steps": ({"plan": plan(*[ONE] * 10_000)}, "body.plan.steps: must have at most 500 steps, not 10000"),
    "too many rounds": (
        {"plan": plan(*(echo(f"s{n}", repeat={"until": HOLDS, "at_most": 100}) for n in range(101)))},
        "steps: could begin 10100 times, with all rounds of their loops; at most 10000",
    ),
    "inputs": ({"plan": plan(ONE), "inputs": {"x": 1}}, "inputs.x: is no input of this plan; it has: none"),
    "a long name": ({"plan": plan(ONE), "name": "x" * 129}, "body.name: String should have at most 128 characters"),
    "a long name of the plan": ({"plan": plan(ONE, name="x" * 129)}, "body.plan.name: String should have at most 128"),
    "a name of two lines": ({"plan": plan(ONE, name="a\nb")}, "body.plan.name: must not contain control"),
    "request_id": ({"plan": plan(ONE), "request_id": "x"}, "body.request_id: Input should be a valid UUID"),
}
TEXTS = {
    "nothing": (b"", "body: Field required"),
    "no JSON": (b"{", "body: is not JSON"),
    "no object": (b"[]", "body: must be an object"),
    "a name twice": (b'{"run_id": 1, "run_id": 2}', "body: has the name 'run_id' twice"),
    "too deep": (b'{"plan": ' + b"[" * 5000 + b"]" * 5000 + b"}", "body: must not be nested deeper than"),
    "no number": (b'{"plan": NaN}', "body: must not contain NaN"),
    "many digits": (b'{"plan": ' + b"9" * 5000 + b"}", "body: must not contain integers of so many digits"),
    "no UTF-8": (b'{"plan": "\xff"}', "body: is not UTF-8: the byte 0xff at line 1, byte"),
    "half a character": (
        b'{"plan": {"steps": [{"name": "one", "work_type": "echo", "parameters": {"message": "\\ud800"}}]}}',
        "message: must be valid Unicode: it contains a lone surrogate",
    ),
}
QUERIES = {
    "status=over": "query.status: Input should be 'pending', 'running'",
    "status=running&status=failed": "query.status: must be there once",
    "name=%00": "query.name: must not contain the NUL character (U+0000)",
    "service=web%00": "query.service: must not contain the NUL character (U+0000)",
    "service=" + "x" * 201: "query.service: String should have at most 200 characters",
    "limit=0": "query.limit: Input should be greater than or equal to 1",
    "limit=201": "query.limit: Input should be less than or equal to 200",
    "limit=ten": "query.limit: must be a whole number, in digits",
    "cursor=x": "cursor: is not one that this service gave; leave it out to begin anew",
    "page=2": "query.page: is not known here; allowed: cursor, limit, name, service, status",
}
ORDERS: dict[str, tuple[str, Any, str]] = {
    "retry from a number": ("retry", {"from_step": 1}, "body.from_step: Input should be a valid string"),
    "retry with another field": ("retry", {"step": "a"}, "body.step: is not known here; allowed: from_step, reason"),
    "a reason of two lines": ("retry", {"reason": "a\nb"}, "body.reason: must not contain control"),
    "a long comment": ("approve", {"comment": "x" * 2001}, "body.comment: String should have at most 2000 characters"),
    "approval_id": ("approve", {"approval_id": "x"}, "body.approval_id: Input should be a valid UUID"),
    "no reason": ("reject", {}, "body.reason: Field required"),
    "an empty reason": ("reject", {"reason": ""}, "body.reason: String should have at least 1 character"),
    "cancel with a body": ("cancel", {"reason": "x"}, "body: is not taken here: this takes no body"),
    "abandon with a body": ("abandon", {"reason": "x"}, "body: is not taken here: this takes no body"),
}


@pytest.fixture(scope="module")
async def http(site: Site) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(timeout=30, **client_options(site.url)) as opened:
        yield opened


def check(answer: httpx2.Response, said: str) -> None:
    problem = answer.json()
    assert (answer.status_code, problem["error_code"]) == (422, 1002), answer.text
    assert said in problem["detail"]
    assert "\n" not in problem["detail"]


@pytest.mark.parametrize(("body", "said"), STARTS.values(), ids=STARTS)
async def test_a_start_with_a_mistake_is_refused(
    http: httpx2.AsyncClient, site: Site, body: dict[str, Any], said: str
) -> None:
    check(await http.post(RUNS, json={"run_id": str(uuid4()), **body}), said)

    assert await site.pool.fetchval("SELECT count(*) FROM run") == 0


@pytest.mark.parametrize(("text", "said"), TEXTS.values(), ids=TEXTS)
async def test_what_is_no_json_is_refused(http: httpx2.AsyncClient, text: bytes, said: str) -> None:
    check(await http.post(RUNS, content=text, headers={"content-type": "application/json"}), said)


@pytest.mark.parametrize(("query", "said"), QUERIES.items(), ids=QUERIES)
async def test_a_list_that_cannot_be_is_refused(http: httpx2.AsyncClient, query: str, said: str) -> None:
    check(await http.get(f"{RUNS}?{query}"), said)


@pytest.mark.parametrize(("order", "body", "said"), ORDERS.values(), ids=ORDERS)
async def test_an_order_with_a_mistake_is_refused_before_its_run_is_looked_for(
    http: httpx2.AsyncClient, order: str, body: Any, said: str
) -> None:
    content = json.dumps(body)

    check(
        await http.post(f"{RUNS}/{uuid4()}/{order}", content=content, headers={"content-type": "application/json"}),
        said,
    )
