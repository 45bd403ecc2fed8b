"""Content encoding of a response: gzip or none."""

import gzip
import re
from typing import Final

# Text of this kind shrinks to about a tenth at any level; level 1 costs a third of the default's CPU time.
_LEVEL: Final = 1
_WEIGHT: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)")


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether the client takes gzip, and does not prefer the body as it is (RFC 9110, 12.5.3).

    A weight that cannot be read counts as a refusal of its coding.
    """
    weights: dict[str, float] = {}
    for element in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in element.split(";"))
        if coding:
            weights["gzip" if coding == "x-gzip" else coding] = _weight(parameters)
    gzip_weight = weights.get("gzip", weights.get("*", 0.0))
    return gzip_weight > 0 and gzip_weight >= weights.get("identity", 0.0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            value = value.strip()
            return float(value) if _WEIGHT.fullmatch(value) else 0.0
    return 1.0


def compress(body: bytes) -> bytes:
    """`body` in gzip, the same bytes for the same body. Costs CPU time: not for the event loop."""
    return gzip.compress(body, compresslevel=_LEVEL, mtime=0)
