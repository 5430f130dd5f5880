"""The same dispatch is the same task, in whatever words, and whichever release stored it."""

import hashlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator.database.pool import Pool
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity, NewTask
from orchestrator.tasks.service import TaskService
from tests.factories import make_new_task

SCRIPT: dict[str, Any] = {"work_type": "shell_script", "parameters": {"script": "true"}}
KEYS: dict[str, Any] = {"ordering_key": "web-1", "concurrency_key": "pulls", "concurrency_limit": 2}
# Dispatches, the texts that every release computes their digests over, written by hand, and the digests.
DIGESTS: list[tuple[dict[str, Any], str, str]] = [
    (
        {},
        (
            '{"hints":{},"idempotent":false,"max_attempts":1,"parameters":{"message":"hello"},"priority":3,'
            '"work_type":"echo"}'
        ),
        "967343091ba91bceed98b2b9fecdbc0a13fd44e91cda1eeddc123d0923aaa5f9",
    ),
    (
        {
            "work_type": "shell_script",
            "parameters": {"script": "true", "max_duration_seconds": 3600.0, "leaves_processes": False},
            "expires_after": timedelta(seconds=60),
            "idempotent": True,
            "max_attempts": 3,
        },
        (
            '{"expires_after_seconds":60.0,"hints":{},"idempotent":true,"max_attempts":3,'
            '"parameters":{"leaves_processes":false,"max_duration_seconds":3600.0,"script":"true"},"priority":3,'
            '"work_type":"shell_script"}'
        ),
        "c004d9e680525853fb60e260d0e98ea018a8f82407229400a7ad1db574299ee8",
    ),
    (
        {"hints": {"required_capabilities": {"gpu_memory_gb": 24.0}}, "priority": 5, **KEYS},
        (
            '{"concurrency_key":"pulls","concurrency_limit":2,"hints":{"required_capabilities":{"gpu_memory_gb":24.0}},'
            '"idempotent":false,"max_attempts":1,"ordering_key":"web-1","parameters":{"message":"hello"},"priority":5,'
            '"work_type":"echo"}'
        ),
        "1242ad7922159dcc276e2e6cf25633c1a8293338636552cd4075d4724a0a4a50",
    ),
    (
        {"precedence": 40, "rerun_of": UUID(int=7)},
        (
            '{"hints":{},"idempotent":false,"max_attempts":1,"parameters":{"message":"hello"},"precedence":40,"priority":3,'
            '"rerun_of":"00000000-0000-0000-0000-000000000007","work_type":"echo"}'
        ),
        "5b91d49426213df6e6f4b5d6092fc15158b0bb81e9baf102eaff5b2136d227fa",
    ),
    (
        {"name": "nightly", "labels": {"team": "web"}, "stop_after": 2, "parameters": {"message": "hällo"}, **KEYS},
        (
            '{"concurrency_key":"pulls","concurrency_limit":2,"hints":{},"idempotent":false,"labels":{"team":"web"},'
            '"max_attempts":1,"name":"nightly","ordering_key":"web-1","parameters":{"message":"hällo"},"priority":3,'
            '"stop_after":2,"work_type":"echo"}'
        ),
        "afac779c86f50ccb499c3e1bb7ba4ade091c2581eca5260fee584df782e0494a",
    ),
]


async def dispatch(tasks: TaskService, task: NewTask) -> Identity | BaseException:
    [answer] = await tasks.dispatch([task], by="caller")
    return answer


def again(task: NewTask, **given: Any) -> NewTask:
    return make_new_task(task_id=task.task_id, request_id=task.request_id, **given)


@pytest.mark.parametrize(("given", "text", "digest"), DIGESTS)
def test_the_digest_of_a_dispatch_is_that_of_every_release(given: dict[str, Any], text: str, digest: str) -> None:
    """So that an old and a new orchestrator beside each other recognise what the other one stored."""
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    assert make_new_task(**given).digest.hex() == digest


@pytest.mark.parametrize(("given", "digest"), [(given, digest) for given, _, digest in DIGESTS])
async def test_what_another_release_stored_is_recognised(
    tasks: TaskService, pool: Pool, given: dict[str, Any], digest: str
) -> None:
    task = make_new_task(**given)
    first = await dispatch(tasks, task)
    async with pool.acquire() as db:
        await db.execute("UPDATE task SET content_digest = $1", bytes.fromhex(digest))

    answer = await dispatch(tasks, again(task, **given))

    assert isinstance(first, Identity)
    assert isinstance(answer, Identity)
    assert answer.task_id == task.task_id


@pytest.mark.parametrize("more", [{}, {"expires_after": timedelta(seconds=60)}, KEYS], ids=str)
@pytest.mark.parametrize(
    ("parameters", "hints", "other_parameters", "other_hints"),
    [
        ({"max_duration_seconds": 10}, {}, {"max_duration_seconds": 10.0}, {}),
        ({"max_duration_seconds": 3600.0, "env": {}, "stdin": ""}, {}, {}, {}),
        ({"leaves_processes": False}, {}, {"max_silence_seconds": None}, {}),
        ({}, {"required_capabilities": {"gpu_memory_gb": 24}}, {}, {"required_capabilities": {"gpu_memory_gb": 24.0}}),
    ],
    ids=str,
)
async def test_the_same_in_other_words_is_the_same_task(
    tasks: TaskService,
    more: dict[str, Any],
    parameters: dict[str, Any],
    hints: dict[str, Any],
    other_parameters: dict[str, Any],
    other_hints: dict[str, Any],
) -> None:
    task = make_new_task(work_type="shell_script", parameters={"script": "true", **parameters}, hints=hints, **more)
    other = again(
        task, work_type="shell_script", parameters={"script": "true", **other_parameters}, hints=other_hints, **more
    )

    answers = [await dispatch(tasks, one) for one in (task, other, task)]

    assert [isinstance(answer, Identity) and answer.task_id for answer in answers] == [task.task_id] * 3


@pytest.mark.parametrize("spelled", [{}, {"max_duration_seconds": 3600}], ids=str)
@pytest.mark.parametrize(
    "change",
    [
        {"ordering_key": "web-2"},
        {"ordering_key": None},
        {"concurrency_key": "pushes"},
        {"concurrency_limit": 3},
        {"concurrency_key": None, "concurrency_limit": None},
        {"expires_after": timedelta(seconds=61)},
        {"expires_after": None},
        {"rerun_of": UUID(int=8)},
        {"precedence": 41},
        {"idempotent": True},
        {"priority": 4},
        {"max_attempts": 2},
        {"name": "nightly"},
        {"labels": {"team": "db"}},
        {"stop_after": 3},
        {"work_type": "echo", "parameters": {}},
        {"hints": {"preferred": {"zone": "eu"}}},
        {"parameters": {"script": "true", "max_duration_seconds": 10}},
        {"parameters": {"script": "true", "leaves_processes": True}},
    ],
    ids=str,
)
async def test_other_content_in_other_words_is_a_conflict(
    tasks: TaskService, change: dict[str, Any], spelled: dict[str, Any]
) -> None:
    given = {
        **SCRIPT,
        **KEYS,
        "expires_after": timedelta(seconds=60),
        "rerun_of": UUID(int=7),
        "precedence": 40,
        "name": "daily",
        "labels": {"team": "web"},
        "stop_after": 2,
    }
    task = make_new_task(**given)
    await dispatch(tasks, task)
    worded = {**given, "parameters": {**SCRIPT["parameters"], **spelled}}

    assert isinstance(await dispatch(tasks, again(task, **{**worded, **change})), IdempotencyConflict)
