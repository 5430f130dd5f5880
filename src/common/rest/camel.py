"""Requests and answers of the queue API: JSON with camelCase names."""

from typing import ClassVar

from pydantic import ConfigDict
from pydantic.alias_generators import to_camel

from common.rest.base import Answer, Request


class CamelRequest(Request):
    """A request of the queue API. Its fields have one name each, also in Python's keywords: the JSON's."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, allow_inf_nan=False)


class CamelAnswer(Answer):
    """An answer of the queue API."""

    model_config: ClassVar[ConfigDict] = ConfigDict(alias_generator=to_camel, validate_by_name=True)
