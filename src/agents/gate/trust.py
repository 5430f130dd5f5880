"""The public keys that this agent believes, kept on its host.

Claims are read only after their signature was verified. Keys change only by claims that one of them
signed; a key that was retired never counts again, whatever is signed later.
"""

import asyncio
import json
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from common.durable import write_file
from common.errors import StartupRefused
from common.private import check_private
from common.signing.claims import KeyClaims, out_of_date
from common.signing.jws import NotTrusted, Purpose, Signed, UnknownKey, verify
from common.signing.keys import PublicKey, UnusableKey, read_public_keys

log = logging.getLogger(__name__)

TRUST_FILE = "trusted_keys.json"


class NoTrustedKeys(StartupRefused):
    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            "This agent runs only what its orchestrator has signed, and knows no key of it: there is no "
            f"{state_dir / TRUST_FILE}, and CHIFFON_AGENT_TRUSTED_KEYS ([agent] trusted_keys) names no file. On the "
            "orchestrator's host, `chiffon keys list --pem` prints the public keys: bring them here in a way that you "
            "trust. CHIFFON_AGENT_SIGNATURES=off runs whatever the broker delivers."
        )


class TrustUnusable(StartupRefused):
    """The keys on disk cannot be used."""


class Trust:
    """The keys in use, and the file in which they outlive this process."""

    def __init__(self, file: Path, keys: Iterable[PublicKey], retired: Iterable[str] = ()) -> None:
        self._file = file
        self._retired = set(retired)
        self._keys = {key.key_id: key for key in keys if key.key_id not in self._retired}
        self._changed = asyncio.Event()

    @property
    def key_ids(self) -> list[str]:
        return sorted(self._keys)

    def check(self, signature: str, purpose: Purpose) -> Signed:
        """Return what a trusted key signed for this purpose; raises `UnknownKey` and `NotTrusted`."""
        return verify(signature, self._keys, purpose)

    async def knows(self, key_id: str, *, within: float) -> bool:
        """Wait until a key is trusted: the news of a new one may be on its way."""
        try:
            async with asyncio.timeout(within):
                while key_id not in self._keys:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def follow(self, signatures: Sequence[str], *, now: datetime, skew: timedelta) -> bool:
        """Take over the keys that claims name, if a trusted key signed them; say whether anything changed.

        On disk before they are believed. Clocks may differ by `skew`. Raises `OSError`.
        """
        claims = self._read(signatures, now=now, skew=skew)
        if claims is None:
            return False
        retired = self._retired | set(claims.retired)
        try:
            named = {named.kid: named.key for named in claims.keys}
        except UnusableKey as error:
            log.warning("trust.unusable_key", extra={"reason": str(error)})
            return False
        keys = {name: key for name, key in {**self._keys, **named}.items() if name not in retired}
        if not keys or (keys.keys() == self._keys.keys() and retired == self._retired):
            return False
        _save(self._file, keys.values(), retired)
        self._keys, self._retired = keys, retired
        self._changed.set()
        log.info("trust.changed", extra={"keys": self.key_ids, "retired": sorted(retired)})
        return True

    def _read(self, signatures: Sequence[str], *, now: datetime, skew: timedelta) -> KeyClaims | None:
        for signature in signatures:
            try:
                claims = KeyClaims.model_validate_json(self.check(signature, Purpose.KEYS).claims)
            except UnknownKey:
                continue
            except NotTrusted as error:
                log.warning("trust.forged", extra={"reason": str(error)})
            except ValidationError:
                log.warning("trust.unreadable")
            else:
                if (reason := out_of_date(claims, now=now, skew=skew)) is None:
                    return claims
                log.warning("trust.out_of_date", extra={"reason": reason})
        log.warning("trust.ignored", extra={"signatures": len(signatures)})
        return None


def open_trust(state_dir: Path, given: Path | None) -> Trust:
    """Return the keys that the state directory and the file `given` hold.

    Raises `NoTrustedKeys` when there is none, and `TrustUnusable` when they cannot be read.
    """
    file = state_dir / TRUST_FILE
    kept, retired = _load(file)
    found = [*kept, *([] if given is None else _bundle(given))]
    trust = Trust(file, found, retired)
    if not trust.key_ids:
        raise NoTrustedKeys(state_dir)
    return trust


def remember_keys(state_dir: Path, pem: bytes) -> None:
    """Trust these public keys, too, from the next start on; for an agent that enrols. Raises `TrustUnusable`."""
    file = state_dir / TRUST_FILE
    kept, retired = _load(file)
    try:
        keys = {key.key_id: key for key in [*kept, *read_public_keys(pem)] if key.key_id not in retired}
        _save(file, keys.values(), retired)
    except (UnusableKey, OSError) as error:
        raise TrustUnusable(f"The keys of the orchestrator cannot be kept in {file}: {error}.") from None


def _bundle(path: Path) -> list[PublicKey]:
    try:
        check_private(path, "The file of trusted keys")
        keys = read_public_keys(path.read_bytes())
    except (UnusableKey, OSError) as error:
        raise TrustUnusable(f"The trusted keys in {path} cannot be read: {error}.") from None
    if not keys:
        raise TrustUnusable(f"{path} holds no public key in PEM. `chiffon keys list --pem` prints them.")
    return keys


def _load(file: Path) -> tuple[list[PublicKey], set[str]]:
    if not file.exists():
        return [], set()
    try:
        content = json.loads(file.read_bytes())
        return [PublicKey.from_text(text) for text in content["keys"].values()], set(content["retired"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UnusableKey) as error:
        raise TrustUnusable(f"{file} cannot be read ({error}). Remove it to trust only the keys given anew.") from None


def _save(file: Path, keys: Iterable[PublicKey], retired: Iterable[str]) -> None:
    content = {"keys": {key.key_id: key.text() for key in keys}, "retired": sorted(retired)}
    write_file(file, json.dumps(content, indent=1).encode())
