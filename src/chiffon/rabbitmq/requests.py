"""Each step as a request to RabbitMQ's management API, and how to see that it is not needed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, assert_never
from urllib.parse import quote

from chiffon.rabbitmq import steps
from common.rabbitmq import queue_arguments

Method = Literal["PUT", "POST", "DELETE"]


@dataclass(frozen=True, slots=True)
class Request:
    """`about` says it in words. It is not needed when the resource at `look` holds `wanted`; None: it always is.

    The answer to a look may be a list, of which one has to hold it.
    """

    about: str
    method: Method
    path: str
    body: Any = None
    look: str | None = None
    wanted: Mapping[str, Any] | None = None


def requests_of(step: steps.Step) -> list[Request]:
    """Return the requests that make a step true."""
    match step:
        case steps.VirtualHost(name):
            return [_put(f"virtual host {name}", _path("vhosts", name), {})]
        case steps.ExchangeStep(vhost, exchange):
            body: dict[str, Any] = {"type": exchange.type.value, "durable": True}
            return [_put(f"exchange {exchange.name}", _path("exchanges", vhost, exchange.name), body)]
        case steps.QueueStep(vhost, queue, queue_type):
            body = {"durable": True, "arguments": queue_arguments(queue, queue_type)}
            return [_put(f"queue {queue.name}", _path("queues", vhost, queue.name), body)]
        case steps.Binding(vhost, queue_name, (exchange, key)):
            path = _path("bindings", vhost, "e", exchange.name, "q", queue_name)
            about = f"binding of {queue_name} to {exchange.name}"
            return [Request(about, "POST", path, {"routing_key": key}, look=path, wanted={"routing_key": key})]
        case steps.Policy(vhost, name, pattern, definition):
            body = {"pattern": pattern, "definition": dict(definition), "apply-to": "queues", "priority": 1}
            return [_put(f"policy {name}", _path("policies", vhost, name), body)]
        case steps.User() | steps.UserLimits() | steps.Rights() | steps.TopicRights():
            return _requests_of_user(step)
        case steps.NoConnections(user):
            return [Request(f"connections of {user} closed", "DELETE", _path("connections", "username", user))]
        case steps.NoUser(name):
            return [Request(f"user {name} deleted", "DELETE", _path("users", name))]
        case steps.NoQueue(vhost, name):
            return [Request(f"queue {name} deleted", "DELETE", _path("queues", vhost, name))]
        case _:
            assert_never(step)


def _requests_of_user(step: steps.User | steps.UserLimits | steps.Rights | steps.TopicRights) -> list[Request]:
    match step:
        case steps.User(name, password, is_replaced=is_replaced):
            path, body = _path("users", name), {"password": password, "tags": ""}
            about = f"password of user {name}" if is_replaced else f"user {name}"
            return [Request(about, "PUT", path, body, look=None if is_replaced else path, wanted={"name": name})]
        case steps.UserLimits(user, connections, channels):
            limits = {"max-connections": connections, "max-channels": channels}
            look = _path("user-limits", user)
            return [
                Request(
                    f"{limit} of {user}",
                    "PUT",
                    _path("user-limits", user, limit),
                    {"value": value},
                    look=look,
                    wanted={"value": {limit: value}},
                )
                for limit, value in limits.items()
            ]
        case steps.Rights(vhost, user, configure, write, read):
            rights = {"configure": configure, "write": write, "read": read}
            return [_put(f"rights of {user}", _path("permissions", vhost, user), rights)]
        case steps.TopicRights(vhost, user, exchange_name, write, read):
            path, keys = (
                _path("topic-permissions", vhost, user),
                {"exchange": exchange_name, "write": write, "read": read},
            )
            return [_put(f"routing keys of {user} at {exchange_name}", path, keys)]
        case _:
            assert_never(step)


def holds(found: Any, wanted: Any) -> bool:
    """Say whether what RabbitMQ answered has everything that is wanted; it may have more."""
    if isinstance(wanted, Mapping):
        return isinstance(found, Mapping) and all(name in found and holds(found[name], wanted[name]) for name in wanted)
    return bool(found == wanted)


def _put(about: str, path: str, body: Mapping[str, Any]) -> Request:
    return Request(about, "PUT", path, body, look=path, wanted=body)


def _path(*parts: str) -> str:
    return "/api/" + "/".join(quote(part, safe="") for part in parts)
