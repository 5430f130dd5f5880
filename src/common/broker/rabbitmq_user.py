"""Who a process is at RabbitMQ, and which user speaks for which agent."""

from uuid import UUID

from yarl import URL

from common.urls import each_host

DEFAULT_USER = "guest"
BY_CERTIFICATE = "external"


def user_of(url: str) -> str | None:
    """Return the user as whom a connection with this URL logs in; None when only the certificate says it.

    Whoever logs in with a certificate names its user in the URL too; otherwise nobody can check what it publishes.
    """
    parts = URL(each_host(url)[0])
    if parts.user is None and parts.query.get("auth", "").lower() == BY_CERTIFICATE:
        return None
    return parts.user or DEFAULT_USER


def user_of_agent(agent_id: UUID | str) -> str:
    """Return the name of the user that speaks for one agent and for nobody else."""
    return f"agent-{agent_id}"
