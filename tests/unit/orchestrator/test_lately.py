"""What /health and /ready say, however often and by however many they are asked."""

import asyncio
from collections import Counter

from orchestrator.ops import health
from orchestrator.ops.health import Lately, passed


async def test_many_who_ask_share_one_question() -> None:
    asked = Counter[str]()

    async def check() -> int:
        asked["broker"] += 1
        await asyncio.sleep(0)
        return 7

    lately = Lately(check, seconds=60)

    answers = await asyncio.gather(*(lately.answer() for _ in range(1000)))

    assert asked["broker"] == 1
    assert answers == [7] * 1000


async def test_a_check_that_raises_or_never_answers_has_not_passed() -> None:
    async def raises() -> str:
        raise OSError("away")

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    async def passes() -> str:
        return ""

    async with asyncio.timeout(health.ANSWER_SECONDS + 5):
        answer = await passed({"a": raises, "b": hangs, "c": passes})

    assert answer == {"a": False, "b": False, "c": True}
