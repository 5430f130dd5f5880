"""The ways in which a token ends."""

from datetime import timedelta

from orchestrator.identities.service import IdentityService, Issued

ENDS = ("revoke", "disable", "expire")


def lasting(how: str) -> timedelta | None:
    """Return for how long a token is to be made that ends like this."""
    return timedelta(0) if how == "expire" else None


async def end(identities: IdentityService, issued: Issued, how: str) -> None:
    """End a token; one that was made to expire at once has ended."""
    if how == "revoke":
        await identities.revoke(issued.token.token_id, by="test")
    elif how == "disable":
        await identities.disable(issued.token.principal_id, by="test")
