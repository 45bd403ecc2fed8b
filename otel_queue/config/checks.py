"""What is checked in the same way in settings and in OpenTelemetry's variables."""

from pathlib import Path
from typing import Final

# 23 days. Sockets and PostgreSQL count a limit's milliseconds in 31 bits, which is a day more.
MOST_SECONDS: Final = 2_000_000


def is_file(path: Path) -> bool:
    """Whether it is one; a name that is too long, or a folder that is not ours, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
