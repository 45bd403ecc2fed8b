"""Aligned text for a terminal."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The rows under their headings, in columns as wide as needed; numbers to the right, None as `-`."""
    rows = [list(row) for row in rows]
    columns = list(zip(*rows, strict=True)) if rows else [() for _ in head]
    lines = [list(head)] + [[_text(value) for value in row] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    right = [all(isinstance(value, int | float | None) for value in column) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
