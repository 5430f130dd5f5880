"""The orchestrator's signature over what it grants."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KeyId = Annotated[str, Field(min_length=1, max_length=64)]


class Seal(BaseModel):
    """A signature (Ed25519, base64) over the bytes (UTF-8) of `statement`, a JSON text, by the key `key_id`.

    What the statement says is read only after the signature was found to be right.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key_id: KeyId
    statement: str
    signature: str = Field(max_length=128)
