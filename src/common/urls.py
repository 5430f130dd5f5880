"""URLs of servers: put together from a host and a port, split into the hosts that one names, shown without secrets."""

from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

HIDDEN = "***"


def place(host: str, port: int | str) -> str:
    """Return a host and a port as a URL holds them: an IPv6 address stands in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def http_url(host: str, port: int | str) -> str:
    """Return the URL of an HTTP server."""
    return f"http://{place(host, port)}"


def each_host(url: str) -> tuple[str, ...]:
    """Return a URL for each host of one that names several (`scheme://user:password@one:1,two:2/path`), in order."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    return tuple(parts._replace(netloc=f"{user}{at}{host}").geturl() for host in hosts.split(","))


def without_secrets(url: str) -> str:
    """Return a URL without its user, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def hide_password(text: str, url: str) -> str:
    """Return a text in which the password of a URL, as it stands there or decoded, is replaced by `***`."""
    password = urlsplit(url).password
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, HIDDEN)
    return text


def is_own_host(host: str) -> bool:
    """Return whether a host of a URL is this one: a name or an address of its loopback."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
