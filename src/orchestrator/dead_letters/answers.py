"""Dead letters as the REST API answers them."""

import base64
from typing import Literal

from common.rest.dead_letters import DeadLetter, DeadLetterDetail
from orchestrator.dead_letters.model import Letter
from orchestrator.dead_letters.rules import parse


def detail(letter: Letter) -> DeadLetterDetail:
    """Return a dead letter with its body."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        body = letter.body.decode()
    except UnicodeDecodeError:
        encoding, body = "base64", base64.b64encode(letter.body).decode()
    shown = dict(DeadLetter.model_validate(letter))
    return DeadLetterDetail(**shown, body=body, body_encoding=encoding, body_json=parse(letter.body))
