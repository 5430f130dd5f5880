"""What /health says of the broker and the database, however often and by however many it is asked."""

import asyncio
from collections import Counter

from orchestrator.http import health
from orchestrator.http.health import Lately


async def test_many_who_ask_share_one_question() -> None:
    asked = Counter[str]()

    async def check() -> str:
        asked["broker"] += 1
        await asyncio.sleep(0)
        return ""

    lately = Lately({"broker": check})

    answers = await asyncio.gather(*(lately.passed() for _ in range(1000)))

    assert asked["broker"] == 1
    assert all(answer == {"broker": True} for answer in answers)


async def test_a_check_that_raises_or_never_answers_has_not_passed() -> None:
    async def raises() -> str:
        raise OSError("away")

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    async def passes() -> str:
        return ""

    async with asyncio.timeout(health.ANSWER_SECONDS + 5):
        answer = await Lately({"a": raises, "b": hangs, "c": passes}).passed()

    assert answer == {"a": False, "b": False, "c": True}


async def test_one_who_asks_and_leaves_takes_the_answer_from_no_other() -> None:
    go = asyncio.Event()

    async def check() -> str:
        await go.wait()
        return ""

    lately = Lately({"broker": check})
    leaving, staying = asyncio.create_task(lately.passed()), asyncio.create_task(lately.passed())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    go.set()

    assert await staying == {"broker": True}
