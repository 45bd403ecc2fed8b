"""Counts of things, for people."""


def number_of(count: int, thing: str) -> str:
    """The count with its noun: "1 queue", "2 queues"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
