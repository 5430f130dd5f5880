"""Each step as a command for whoever sets RabbitMQ up by hand. None holds a password: `rabbitmqctl` asks for it."""

import json
import shlex
from typing import assert_never

from chiffon.rabbitmq import steps
from common.rabbitmq import queue_arguments


def command_of(step: steps.Step) -> str:
    """Return the shell command that makes a step true."""
    match step:
        case steps.ExchangeStep(vhost, exchange):
            return _declare(vhost, "exchange", name=exchange.name, type=exchange.type.value, durable="true")
        case steps.QueueStep(vhost, queue, queue_type):
            arguments = json.dumps(queue_arguments(queue, queue_type))
            return _declare(vhost, "queue", name=queue.name, durable="true", arguments=arguments)
        case steps.Binding(vhost, queue_name, (exchange, key)):
            return _declare(vhost, "binding", source=exchange.name, destination=queue_name, routing_key=key)
        case steps.Rights() | steps.TopicRights() | steps.User() | steps.UserLimits():
            return shlex.join(["rabbitmqctl", *_words_of_user(step)])
        case _:
            return shlex.join(["rabbitmqctl", *_words(step)])


def _words(
    step: steps.VirtualHost | steps.Policy | steps.NoConnections | steps.NoUser | steps.NoQueue,
) -> tuple[str, ...]:
    match step:
        case steps.VirtualHost(name):
            return "add_vhost", name
        case steps.Policy(vhost, name, pattern, definition):
            options = ("-p", vhost, "--apply-to", "queues", "--priority", "1")
            return "set_policy", *options, name, pattern, json.dumps(dict(definition))
        case steps.NoConnections(user):
            return "close_all_user_connections", user, "its password has changed"
        case steps.NoUser(name):
            return "delete_user", name
        case steps.NoQueue(vhost, name):
            return "delete_queue", "-p", vhost, name
        case _:
            assert_never(step)


def _words_of_user(step: steps.User | steps.UserLimits | steps.Rights | steps.TopicRights) -> tuple[str, ...]:
    match step:
        case steps.User(name, is_replaced=is_replaced):
            return "change_password" if is_replaced else "add_user", name
        case steps.UserLimits(user, connections, channels):
            limits = {"max-connections": connections, "max-channels": channels}
            return "set_user_limits", user, json.dumps(limits)
        case steps.Rights(vhost, user, configure, write, read):
            return "set_permissions", "-p", vhost, user, configure, write, read
        case steps.TopicRights(vhost, user, exchange, write, read):
            return "set_topic_permissions", "-p", vhost, user, exchange, write, read
        case _:
            assert_never(step)


def _declare(vhost: str, what: str, **fields: str) -> str:
    return shlex.join(["rabbitmqadmin", f"--vhost={vhost}", "declare", what, *(f"{k}={v}" for k, v in fields.items())])
