"""A work type of your own: CHIFFON_AGENT_EXECUTORS=examples.count_words:CountWords chiffon agent"""

import asyncio
from collections import Counter

from pydantic import Field

from chiffon.executors import ExecutionContext, Executor, Outcome, Parameters, ResultStatus, Stream


class CountWordsParameters(Parameters):
    """Count the words of a text."""

    text: str = Field(max_length=262_144, description="The text.")
    most_common: int = Field(default=3, ge=0, le=100, description="How many of the most frequent words to return.")
    pause_seconds: float = Field(default=0, ge=0, le=3600, description="Wait so long before counting.")


class CountWords(Executor[CountWordsParameters]):
    kind = "count_words"
    parameters = CountWordsParameters

    def labels(self) -> dict[str, list[str]]:
        return {"languages": ["en", "de"]}

    async def carry_out(self, parameters: CountWordsParameters, context: ExecutionContext) -> Outcome:
        await asyncio.sleep(parameters.pause_seconds)
        words = Counter(parameters.text.lower().split())
        await context.write(Stream.STDOUT, f"{words.total()} words\n".encode())
        return Outcome(
            ResultStatus.COMPLETED,
            result={"words": words.total(), "most_common": dict(words.most_common(parameters.most_common))},
        )
