"""Notice that the signing keys have changed: a rotation needs no restart."""

from orchestrator.signing.signer import Signer


class ReadKeys:
    """Looks into the directory of keys again."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    async def run_once(self) -> int:
        await self._signer.refresh()
        return 0
