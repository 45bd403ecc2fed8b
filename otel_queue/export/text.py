"""Prometheus text and OpenMetrics, from the SDK's Prometheus reader."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from otel_queue.catalog import CATALOG
from otel_queue.export.series import SeriesText, with_series
from otel_queue.samples import Family

# prometheus_client would add `_total` to these.
_BARE_COUNTERS: Final = tuple(
    row.name.encode() for row in CATALOG.values() if row.kind == "counter" and not row.name.endswith("_total")
)
_DEFAULT_ACCEPT: Final = "text/plain; version=0.0.4"
_OPENMETRICS_ACCEPT: Final = "application/openmetrics-text; version=1.0.0"
# prometheus_client answers in any version from 1.0.0 on that is asked for, and under other names for other escapings.
_SPOKEN: Final = re.compile(r".*; version=(0\.0\.4|1\.0\.0); charset=utf-8(; escaping=(underscores|allow-utf-8))?")


def _negotiated(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """How to encode, and its content type: of a format and version that this is, whatever is asked for."""
    try:
        encode, content_type = choose_encoder(accept or _DEFAULT_ACCEPT)
    except TypeError:  # a version that is no number
        return choose_encoder(_DEFAULT_ACCEPT)
    if _SPOKEN.fullmatch(content_type):
        return encode, content_type
    return choose_encoder(_OPENMETRICS_ACCEPT if "openmetrics" in content_type else _DEFAULT_ACCEPT)


def _with_bare_names(body: bytes, openmetrics: bool) -> bytes:
    """The exposition with counters that have no `_total` under their own names, as they come through a Collector.

    OpenMetrics knows no such counters: there they are of type unknown.
    """
    for name in _BARE_COUNTERS:
        body = body.replace(name + b"_total", name)
        if openmetrics:
            body = body.replace(b"# TYPE " + name + b" counter\n", b"# TYPE " + name + b" unknown\n")
    return body


class TextExposition:
    """Renders what the reader collects. Its registry is its own: no process or Go-like metrics beside ours.

    Families that are aggregated already (`aggregated`, asked at each rendering) are written beside what the reader
    collects. Requests in the same `share_seconds` and format get the same bytes, so that many scrapers cost one
    collection.
    """

    def __init__(
        self,
        *,
        share_seconds: float,
        aggregated: Callable[[], Iterable[Family]] = tuple,
        attributes: Mapping[str, Sequence[str]] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(scope_info_enabled=False, registry=self._registry)
        self._share_seconds = share_seconds
        self._aggregated = aggregated
        self._series = SeriesText(attributes or {})
        self._now = now
        # The reader's collector must not be used by two threads at a time.
        self._lock = threading.Lock()
        self._rendered: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body for an Accept header; text format 0.0.4 where it names nothing better."""
        encode, content_type = _negotiated(accept)
        with self._lock:
            kept = self._rendered.get(content_type)
            if kept is not None and self._now() - kept[0] < self._share_seconds:
                return content_type, kept[1]
            openmetrics = "openmetrics" in content_type
            series = self._series.render(self._aggregated(), openmetrics=openmetrics)
            body = with_series(_with_bare_names(encode(self._registry), openmetrics), series)
            now = self._now()
            fresh = {name: kept for name, kept in self._rendered.items() if now - kept[0] < self._share_seconds}
            self._rendered = fresh | {content_type: (now, body)}
        return content_type, body
