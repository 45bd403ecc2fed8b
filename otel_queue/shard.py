"""Which projects an exporter takes, where several share the domain lane."""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Final


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts of the projects; `index` is from 0. Every project is in one part, by the hash of its id."""

    index: int = 0
    count: int = 1

    def owns(self, project: str) -> bool:
        """Whether the project is of this part."""
        return self.count == 1 or _hash(project) % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


WHOLE: Final = Shard()


@lru_cache(65_536)
def _hash(project: str) -> int:
    return zlib.crc32(project.encode("utf-8", "surrogateescape"))


def parse_shard(text: str) -> Shard:
    """The shard that `I/N` names; raises ValueError."""
    index, _, count = text.partition("/")
    if index.isdecimal() and count.isdecimal() and int(index) < int(count):
        return Shard(int(index), int(count))
    raise ValueError(f"must be I/N with I from 0 to N-1, as in 0/4, not {text!r}")
