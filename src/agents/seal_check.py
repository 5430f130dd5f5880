"""Check the seal of a grant. Each message is checked once, however many tasks it grants."""

from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from pydantic import ValidationError

from agents.seal_rules import disagreement
from agents.trust import NotTrusted, Trust, UnknownKey
from common.clock import Clock
from common.messages import GrantedTask
from common.safeguards import Safeguard, is_on
from common.seal import Seal
from common.signing.statements import GrantStatement

REMEMBERED = 64
# How long the news of a new key may take: it comes with the answer to the next heartbeat.
NEWS_SECONDS = 15.0


def own_claim(grant: GrantedTask) -> UUID:
    """Return the claim that a grant answers; over HTTP another id was sent."""
    return grant.claim_id


class SealCheck:
    """`trust` None checks nothing: every grant counts."""

    def __init__(
        self,
        trust: Trust | None,
        agent_id: UUID,
        clock: Clock,
        *,
        skew: timedelta,
        claim_of: Callable[[GrantedTask], UUID | None] = own_claim,
        ask_for_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self._trust = trust
        self._agent_id = agent_id
        self._clock = clock
        self._skew = skew
        self._claim_of = claim_of
        self._ask_for_keys = ask_for_keys
        self._read: OrderedDict[Seal, GrantStatement] = OrderedDict()

    async def refusal(self, grant: GrantedTask, seal: Seal | None) -> str | None:
        """Return why a grant may not be run; None when it is the orchestrator's, for this agent, and now."""
        try:
            return self._problem(grant, seal)
        except UnknownKey as unknown:
            assert self._trust is not None
            self._ask_for_keys()
            if not await self._trust.knows(unknown.key_id, within=NEWS_SECONDS):
                return str(unknown)
        return self._problem_or_unknown(grant, seal)

    def is_genuine(self, grant: GrantedTask, seal: Seal | None) -> bool:
        """Return whether a grant that no claim waits for is the orchestrator's all the same."""
        return self._problem_or_unknown(grant, seal) is None

    def _problem_or_unknown(self, grant: GrantedTask, seal: Seal | None) -> str | None:
        try:
            return self._problem(grant, seal)
        except UnknownKey as unknown:
            return str(unknown)

    def _problem(self, grant: GrantedTask, seal: Seal | None) -> str | None:
        """See `refusal`; raises `UnknownKey`."""
        if self._trust is None:
            return None
        if seal is None:
            return "it is not signed"
        try:
            statement = self._statement(self._trust, seal)
        except UnknownKey:
            raise
        except NotTrusted as error:
            return str(error)
        claim_id = self._claim_of(grant)
        if claim_id is None:
            return "this agent did not ask for it"
        if not is_on(Safeguard.REPLAY):
            claim_id = next((one.claim_id for one in statement.tasks if one.task_id == grant.work.task_id), claim_id)
        now = self._clock.now()
        return disagreement(statement, grant, agent_id=self._agent_id, claim_id=claim_id, now=now, skew=self._skew)

    def _statement(self, trust: Trust, seal: Seal) -> GrantStatement:
        """Return what a seal says. The memory ends with the trust in its key."""
        known = self._read.get(seal)
        if known is not None and seal.key_id in trust.key_ids:
            return known
        content = trust.check(seal)
        try:
            statement = GrantStatement.model_validate_json(content)
        except ValidationError:
            raise NotTrusted("what was signed is no grant") from None
        self._read[seal] = statement
        if len(self._read) > REMEMBERED:
            self._read.popitem(last=False)
        return statement
