"""Check the signature of a grant. Each message is checked once, however many tasks it grants."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from pydantic import ValidationError

from agents.gate.signature_rules import SignedGrants, disagreement
from agents.gate.trust import Trust
from common.clock import Clock
from common.messages import GrantedTask
from common.signing.claims import GrantClaims
from common.signing.jws import NotTrusted, Purpose, UnknownKey

REMEMBERED = 64
# How long the news of a new key may take: it comes with the answer to the next heartbeat.
NEWS_SECONDS = 15.0


class SignatureCheck:
    """`trust` None checks nothing: every grant counts."""

    def __init__(
        self,
        trust: Trust | None,
        agent_id: UUID,
        clock: Clock,
        *,
        skew: timedelta,
        claim_of: Callable[[GrantedTask], UUID | None],
        ask_for_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self._trust = trust
        self._agent_id = agent_id
        self._clock = clock
        self._skew = skew
        self._claim_of = claim_of
        self._ask_for_keys = ask_for_keys
        self._read: OrderedDict[str, tuple[str, SignedGrants]] = OrderedDict()

    async def key_news(self, signature: str | None) -> None:
        """Wait until the key of a signature is trusted, or long enough: the news of a new one may be on its way."""
        if self._trust is None or signature is None:
            return
        try:
            self._signed(self._trust, signature)
        except UnknownKey as unknown:
            self._ask_for_keys()
            await self._trust.knows(unknown.key_id, within=NEWS_SECONDS)
        except NotTrusted:
            return

    def refusal(self, grant: GrantedTask, signature: str | None, credit: int | None) -> str | None:
        """Return why a grant may not be run; None when it is the orchestrator's, for this process, and now.

        `signature` and `credit` are those of the message that brought it.
        """
        claim_id = self._claim_of(grant)
        if claim_id is None:
            return "this agent did not ask for it"
        return self._problem(grant, signature, credit, claim_id)

    def is_genuine(self, grant: GrantedTask, signature: str | None, credit: int | None) -> bool:
        """Return whether a grant is the orchestrator's, for this or an earlier process of this agent."""
        return self._problem(grant, signature, credit, grant.claim_id) is None

    def _problem(self, grant: GrantedTask, signature: str | None, credit: int | None, claim_id: UUID) -> str | None:
        if self._trust is None:
            return None
        if signature is None:
            return "it is not signed"
        try:
            signed = self._signed(self._trust, signature)
        except NotTrusted as error:
            return str(error)
        return disagreement(
            signed,
            grant,
            credit=credit,
            agent_id=self._agent_id,
            claim_id=claim_id,
            now=self._clock.now(),
            skew=self._skew,
        )

    def _signed(self, trust: Trust, signature: str) -> SignedGrants:
        """Return what a signature says. The memory ends with the trust in its key."""
        known = self._read.get(signature)
        if known is not None and known[0] in trust.key_ids:
            return known[1]
        checked = trust.check(signature, Purpose.GRANT)
        try:
            signed = SignedGrants.of(GrantClaims.model_validate_json(checked.claims))
        except ValidationError:
            raise NotTrusted("what was signed is no grant") from None
        self._read[signature] = checked.key_id, signed
        if len(self._read) > REMEMBERED:
            self._read.popitem(last=False)
        return signed
