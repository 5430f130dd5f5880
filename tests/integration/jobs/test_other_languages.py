"""A worker in another language verifies what it is given: by the RFCs alone, with none of the program's code for it."""

import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx2
import jwt
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from orchestrator.signing.directory import add_key
from tests.hand_made_jws import header_of, verified_claims
from tests.integration.jobs.asking import Json, create, post
from tests.integration.jobs.conftest import serving

# All that programs write differently: numbers, the order of names, what is escaped.
PAYLOAD: dict[str, Any] = {
    "numbers": [100.0, 1e2, 100, -0.0, 0.1, 1.5, 1e-7, 1e-6, 123456789.125, 2**53 - 1, 1 - 2**53],
    "names": {"\ufb33": 1, "\U0001f600": 2, "\u00f6": 3, "Z": 4, "a": 5, "\ue000": 6},
    "text": "\u20ac$\u000f\nA'B\"\\\\\u007f\u2028/",
    "empty": [{}, [], "", None, True, False],
}


@pytest.fixture
async def signing_queue(ledger_url: str, tmp_path: Path) -> AsyncIterator[tuple[httpx2.AsyncClient, bytes]]:
    """A client of a queue API that signs, and the public key."""
    key = add_key(tmp_path / "keys", signs_from=datetime.now(UTC))
    async with serving(ledger_url, signing_keys_dir=tmp_path / "keys", signatures="required") as client:
        yield client, key.public.raw


def kid_of(public_key: bytes) -> str:
    return hashlib.sha256(public_key).hexdigest()[:32]


def digest_of(job: Json, grant: Json) -> str:
    """Compute the digest as docs/reference/signatures.md says."""
    work = {
        "hints": grant["hints"],
        "parameters": job["payload"],
        "policy_version": grant["policyVersion"],
        "target": grant["target"] or "",
        "work_type": job["type"],
    }
    return hashlib.sha256(rfc8785.dumps(work)).hexdigest()


async def test_a_job_is_verified_with_standard_libraries_alone(
    signing_queue: tuple[httpx2.AsyncClient, bytes],
) -> None:
    queue, public_key = signing_queue
    made = await create(queue, payload=PAYLOAD, affinityKey="gpu")
    worker_id, claim_id = uuid4(), uuid4()

    answer = await post(
        queue, "/jobs/claim", workerId=str(worker_id), claimId=str(claim_id), leaseSeconds=30, allowedTypes=["render"]
    )

    job, grant, signature = answer["job"], answer["grant"], answer["signature"]
    assert header_of(signature) == {"alg": "EdDSA", "kid": kid_of(public_key), "typ": "chiffon-grant+jwt"}
    claims = verified_claims(signature, public_key)
    assert UUID(claims["aud"]) == worker_id
    assert claims["iat"] - 60 < datetime.now(UTC).timestamp() < claims["exp"] == claims["iat"] + 30
    [task] = claims["tasks"]
    assert task == {
        "task_id": made["id"],
        "claim_id": str(claim_id),
        "request_id": job["requestId"],
        "trace_id": job["traceId"],
        "attempt": job["attempt"],
        "lease_seconds": 30,
        "max_output_bytes": job["maxOutputBytes"],
        "digest": digest_of(job, grant),
        "target": grant["target"],
        "policy_version": grant["policyVersion"],
        "effect": grant["effect"],
        "approval_id": grant["approvalId"],
        "confinement": task["confinement"],
    }
    demands = {name for name, value in task["confinement"].items() if value not in (None, False)}
    assert demands == set(grant["confinement"]) == set()


async def test_the_digest_is_that_of_the_payload_as_it_was_sent(
    signing_queue: tuple[httpx2.AsyncClient, bytes],
) -> None:
    queue, public_key = signing_queue
    await create(queue, payload=PAYLOAD)

    answer = await post(queue, "/jobs/claim", workerId=str(uuid4()), leaseSeconds=30)

    [task] = verified_claims(answer["signature"], public_key)["tasks"]
    assert task["digest"] == digest_of({**answer["job"], "payload": PAYLOAD}, answer["grant"])


async def test_news_of_keys_are_verified_with_standard_libraries_alone(
    signing_queue: tuple[httpx2.AsyncClient, bytes],
) -> None:
    queue, public_key = signing_queue

    told = await post(queue, f"/workers/{uuid4()}/heartbeat", trustedKeys=["0" * 32])

    [signature] = told["keys"]
    assert header_of(signature) == {"alg": "EdDSA", "kid": kid_of(public_key), "typ": "chiffon-keys+jwt"}
    claims = verified_claims(signature, public_key)
    assert (claims["aud"], claims["retired"]) == ("chiffon-agents", [])
    assert claims["iat"] <= datetime.now(UTC).timestamp() < claims["exp"]
    [named] = claims["keys"]
    read = jwt.PyJWK(named)
    assert isinstance(read.key, Ed25519PublicKey)
    assert (read.key_id, read.key.public_bytes_raw()) == (kid_of(public_key), public_key)


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**63, 1e300])
async def test_an_integer_that_other_programs_read_as_another_is_refused_by_its_name(
    queue: httpx2.AsyncClient, number: float
) -> None:
    body = {"type": "render", "payload": {"rows": [{"size": 1}, {"size": number}]}}

    answer = await queue.post("/api/queue/jobs", json=body)

    assert answer.status_code == 422
    assert "payload" in answer.text
    assert "must not contain numbers beyond ±9007199254740991" in answer.text
    assert "rows.1.size" in answer.text
