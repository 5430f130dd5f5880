"""The secrets that the agent itself needs to reach the orchestrator; none of them may leave in the output of work."""

from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from agents.settings import AgentSettings
from common.config import SharedSettings


def own_secrets(settings: AgentSettings, shared: SharedSettings) -> Iterator[str]:
    """Return the passwords in the addresses that the settings name."""
    for url in filter(None, (shared.broker_url, settings.server_url)):
        parts = urlsplit(url)
        # A password that is the user's name, as in guest:guest, is no secret, and hiding that word has no use.
        if parts.password and parts.password != parts.username:
            yield parts.password
            yield unquote(parts.password)
