"""How fast output may come. Pure; time is an argument."""


class Pace:
    """Allows `per_second` bytes, and what a second brings at once."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._paid_until = float("-inf")

    def take(self, size: int, *, now: float) -> float:
        """Count bytes that came, and return how many seconds to wait before more may come."""
        self._paid_until = max(self._paid_until, now - 1) + size / self._per_second
        return max(0.0, self._paid_until - now)
