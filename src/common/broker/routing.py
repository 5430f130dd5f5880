"""Which queues a message goes to, for the backends that have no exchanges of their own."""

from collections.abc import Iterable

from common.broker.base import Address, Queue
from common.broker.topology import matches


class Routes:
    """The bindings of all queues, looked up by address; what was found is remembered until a binding changes."""

    def __init__(self, queues: Iterable[Queue] = ()) -> None:
        self._queues = {queue.name: queue for queue in queues}
        self._found: dict[Address, tuple[Queue, ...]] = {}

    def add(self, queue: Queue) -> None:
        """Add a queue; one of the same name gains the bindings that it does not have yet."""
        known = self._queues.get(queue.name)
        if known is not None:
            bindings = tuple(dict.fromkeys((*known.bindings, *queue.bindings)))
            queue = Queue(queue.name, bindings, has_priorities=known.has_priorities)
        self._queues[queue.name] = queue
        self._found.clear()

    def remove(self, name: str) -> None:
        self._queues.pop(name, None)
        self._found.clear()

    def find(self, address: Address) -> tuple[Queue, ...]:
        """Return the queues that take a message with this address, each once."""
        found = self._found.get(address)
        if found is None:
            found = tuple(queue for queue in self._queues.values() if _takes(queue, address))
            self._found[address] = found
        return found


def _takes(queue: Queue, address: Address) -> bool:
    return any(
        binding.exchange.name == address.exchange.name
        and matches(binding.exchange.type, binding.routing_key, address.routing_key)
        for binding in queue.bindings
    )
