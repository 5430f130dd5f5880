"""Notice that the signing keys have changed: a rotation needs no restart, and is an event."""

from orchestrator.audit.service import AuditService
from orchestrator.signing.signer import Signer


class ReadKeys:
    """Looks into the directory of keys again."""

    def __init__(self, signer: Signer, audit: AuditService) -> None:
        self._signer = signer
        self._audit = audit
        self._told = signer.key_ids

    async def run_once(self) -> int:
        await self._signer.refresh()
        # Compared with what was told, so that an event that could not be written is written the next time.
        if self._signer.key_ids != self._told:
            now = self._signer.key_ids
            await self._audit.keys_changed(*now)
            self._told = now
        return 0
