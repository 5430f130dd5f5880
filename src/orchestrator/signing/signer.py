"""Sign what is granted, and say which keys sign."""

import asyncio
import logging
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

from common.clock import Clock
from common.errors import StartupRefused
from common.messages import GrantedTask
from common.signing.claims import KeyClaims, NamedKey, SignedTask, sign_grant
from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey
from orchestrator.signing.directory import KeysUnusable, StoredKeys, read_keys

log = logging.getLogger(__name__)

# How long news of keys counts. It is signed anew after half of that.
NEWS_COUNTS = timedelta(hours=1)

NO_KEYS = (
    "There are no signing keys, and agents run only what is signed. Make one with "
    "`chiffon keys rotate --directory DIR` and set CHIFFON_SIGNING_KEYS_DIR=DIR, or set CHIFFON_SIGNATURES=off here "
    "and CHIFFON_AGENT_SIGNATURES=off at the agents."
)


class Signer:
    """Holds the keys of one directory, in memory only."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        """Read the keys. Raises `KeysUnusable` when there is none."""
        self._directory = directory
        self._clock = clock
        self._keys = _some(read_keys(directory), directory)
        self._news: tuple[str, ...] = ()
        self._news_until = clock.now()

    @property
    def key(self) -> PrivateKey:
        """The key that signs now."""
        signing = self._keys.signing(self._clock.now())
        assert signing is not None
        return signing.key

    @property
    def key_ids(self) -> tuple[list[str], list[str]]:
        """The names of the keys that are believed, and of those that never are again."""
        return [stored.key.key_id for stored in self._keys.keys], list(self._keys.retired)

    def sign(self, agent_id: UUID, grants: Sequence[GrantedTask], *, credit: int | None = None) -> str:
        """Return one signature for all that a message grants; it holds as long as the leases that it gives."""
        now = self._clock.now()
        valid = timedelta(seconds=max(grant.lease_seconds for grant in grants))
        tasks = [SignedTask.of(grant, digest=grant.ruled_digest) for grant in grants]
        return sign_grant(self.key, agent_id, tasks, now=now, valid=valid, credit=credit)

    def public_keys(self) -> tuple[str, ...]:
        """Return the keys that count, in PEM, for an agent that is to believe them from now on."""
        return tuple(stored.key.public.pem().decode() for stored in self._keys.keys)

    def news_for(self, trusted: Collection[str] | None) -> tuple[str, ...]:
        """Return what an agent must be told that trusts these keys; nothing when it knows all, or checks nothing.

        The same is signed with each key, because it may trust only one of them.
        """
        if trusted is None:
            return ()
        ours = {stored.key.key_id for stored in self._keys.keys}
        if ours <= set(trusted) and not set(self._keys.retired) & set(trusted):
            return ()
        now = self._clock.now()
        if now >= self._news_until:
            claims = KeyClaims(
                iat=int(now.timestamp()),
                exp=int((now + NEWS_COUNTS).timestamp()),
                keys=tuple(NamedKey.of(stored.key.public) for stored in self._keys.keys),
                retired=self._keys.retired,
            ).model_dump_json()
            self._news = tuple(sign(stored.key, Purpose.KEYS, claims) for stored in self._keys.keys)
            self._news_until = now + NEWS_COUNTS / 2
        return self._news

    async def refresh(self) -> bool:
        """Read the directory again; say whether there was news. What cannot be read leaves everything as it was."""
        try:
            found = _some(await asyncio.to_thread(read_keys, self._directory), self._directory)
        except KeysUnusable as failure:
            log.error("signing.keys_unusable", extra={"reason": str(failure)})  # noqa: TRY400
            return False
        if _names(found) == _names(self._keys):
            return False
        self._keys, self._news_until = found, self._clock.now()
        log.info("signing.keys_changed", extra={"keys": [one.key.key_id for one in found.keys]})
        return True


def open_signer(directory: Path | None, clock: Clock, *, is_required: bool) -> Signer | None:
    """Return the signer with the keys of a directory; None, with a warning, without one where none is required.

    Raises `StartupRefused` where one is.
    """
    if directory is None:
        if is_required:
            raise StartupRefused(NO_KEYS)
        log.warning("signing.off", extra={"reason": "CHIFFON_SIGNING_KEYS_DIR names no directory"})
        return None
    return Signer(directory.expanduser(), clock)


def _some(keys: StoredKeys, directory: Path) -> StoredKeys:
    if not keys.keys:
        raise KeysUnusable(
            f"There is no signing key in {directory}. Make one: chiffon keys rotate --directory {directory}"
        )
    return keys


def _names(keys: StoredKeys) -> tuple[list[tuple[str, object]], tuple[str, ...]]:
    return [(one.key.key_id, one.signs_from) for one in keys.keys], keys.retired
