"""Families that are aggregated already, as Prometheus text: rendered beside the SDK's own, with cached prefixes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client.utils import floatToGoString

from otel_queue.catalog import CATALOG, Row
from otel_queue.export.instruments import allowed_keys, narrowed
from otel_queue.samples import Family, LabelValues

_EOF: Final = b"# EOF\n"


class SeriesText:
    """Renders families in both text formats, as prometheus_client would.

    The part of a line before its value is kept from one scrape to the next: with 50,000 series it is nearly all of
    the work. Parts of series that vanish are dropped as soon as they outnumber the living.
    """

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        self._attributes = attributes
        self._prefixes: dict[str, dict[LabelValues, str]] = {}

    def render(self, families: Iterable[Family], *, openmetrics: bool) -> bytes:
        """The families' lines; families without samples are left out, as the SDK does."""
        parts: list[str] = []
        for family in families:
            row = CATALOG[family.name]
            keys = allowed_keys(row, self._attributes)
            samples = narrowed(family, keys)
            if not samples:
                continue
            parts.append(_head(row, openmetrics))
            prefixes = self._prefixes.setdefault(family.name, {})
            lines = []
            for values, value in samples:
                prefix = prefixes.get(values)
                if prefix is None:
                    prefix = prefixes[values] = _prefix(row.name, keys, values)
                lines.append(prefix + floatToGoString(value))
            parts.append("\n".join(lines) + "\n")
            if len(prefixes) > 2 * len(samples):
                living = {values for values, _ in samples}
                self._prefixes[family.name] = {key: prefixes[key] for key in living}
        return "".join(parts).encode()


def with_series(body: bytes, series: bytes) -> bytes:
    """An exposition with the series added, before its end mark where it has one."""
    return body.removesuffix(_EOF) + series + _EOF if body.endswith(_EOF) else body + series


def _head(row: Row, openmetrics: bool) -> str:
    name = row.name.removesuffix("_total") if openmetrics and row.kind == "counter" else row.name
    help_text = row.description.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics:
        help_text = help_text.replace('"', r"\"")
    unit = f"# UNIT {name} seconds\n" if openmetrics and row.unit == "s" else ""
    return f"# HELP {name} {help_text}\n# TYPE {name} {row.kind}\n{unit}"


def _prefix(name: str, keys: Sequence[str], values: LabelValues) -> str:
    if not keys:
        return f"{name} "
    pairs = ",".join(f'{key}="{_escaped(value)}"' for key, value in sorted(zip(keys, values, strict=True)))
    return f"{name}{{{pairs}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
