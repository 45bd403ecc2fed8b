"""When something that repeats is due again, on whatever clock the caller reads."""


class Interval:
    """Due at once, and then every so many seconds; a reader that comes late finds it due once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._next = 0.0

    def is_due(self, now: float) -> bool:
        """Whether it is time; if so, the next time is a full interval from now."""
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True

    def wait(self, now: float, seconds: float) -> None:
        """Put the next time off until so many seconds from now."""
        self._next = now + seconds
