"""The composition root of a worker: a recorder, the readers that export it, the writer of the ledger.

An application with a MeterProvider of its own takes `views` and `Recorder` instead, and then does without what
this module adds. A child forked during a collection may hang, and begins with its parent's counts; shutdown takes
as long as the application's exporters do; instruments without our Views keep the SDK's limit of 2000 sets of
attributes and its boundaries. Exactness under threads, the misses and the ledger are the same.
"""

import atexit
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, Literal

from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    AlwaysOnExemplarFilter,
    MeterProvider,
    TraceBasedExemplarFilter,
)
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import DropAggregation, View

from otel_queue.catalog import ATTEMPTS, CATALOG
from otel_queue.config import Config, load_config, parse_listen
from otel_queue.export.instruments import NO_LIMIT, allowed_keys
from otel_queue.export.otlp import otlp_push
from otel_queue.export.resource import build_resource
from otel_queue.export.text import TextExposition
from otel_queue.fork import call_in_children
from otel_queue.ledger.connect import ledger_store
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.recorder import Recorder
from otel_queue.recorder.instruments import NAMES
from otel_queue.recorder.writer import Writer

_log: Final = logging.getLogger(__name__)

Store = Literal["process", "ledger"]

_SERVICE_NAME: Final = "otel-queue-worker"
_SHARE_SECONDS: Final = 0.2
_EXEMPLAR_FILTERS: Final = {
    "trace_based": TraceBasedExemplarFilter(),
    "always_on": AlwaysOnExemplarFilter(),
    "always_off": AlwaysOffExemplarFilter(),
}


def views(store: Store, attributes: Mapping[str, Sequence[str]] | None = None) -> list[View]:
    """Views for a worker's MeterProvider: allow lists of attribute keys, narrowed by `attributes`.

    `store` says who exports convoy_event_delivery_attempts_total: `process` this one, while with `ledger`, for a
    recorder that has a writer, a Drop View silences it, and the exporter reads the ledger.
    """
    return [_view(name, store, attributes or {}) for name in sorted(NAMES)]


def _view(name: str, store: Store, attributes: Mapping[str, Sequence[str]]) -> View:
    row = CATALOG[name]
    if name == ATTEMPTS and store == "ledger":
        return View(instrument_name=name, aggregation=DropAggregation())
    return View(
        instrument_name=name,
        attribute_keys=set(allowed_keys(row, attributes)),
        aggregation_cardinality_limit=NO_LIMIT,
    )


def ledger_writer(
    config: Config, *, waits: bool = False, write_timeout_seconds: float = 0.25, breaker_seconds: float = 5.0
) -> BufferedWriter | SyncWriter:
    """A writer to the configured ledger: a buffered one, or with `waits` one that waits for Redis for a moment.

    One that waits queues what took longer than `write_timeout_seconds`, and after such a failure does not try at all
    for `breaker_seconds`. With `committed` a long limit and no breaker are what fails the fewest tasks.
    It connects when something is written. What is queued at exit is written then, within five seconds, if it was not
    closed before.
    """
    buffer = BufferedWriter(ledger_store(config))
    if not waits:
        return buffer
    # A connection of its own, so that no write waits behind the buffer's, and one that is made or given up in time.
    redis = config.ledger_redis
    quick = replace(redis, connect_timeout_seconds=min(redis.connect_timeout_seconds, write_timeout_seconds))
    return SyncWriter(
        ledger_store(config, quick),
        buffer,
        write_timeout_seconds=write_timeout_seconds,
        breaker_seconds=breaker_seconds,
    )


class _Process:
    """What a process must have for itself: readers, connections, and the locks of both."""

    def __init__(
        self,
        config: Config,
        store: Store,
        ledger: Callable[[], Writer] | None,
        readers: Sequence[MetricReader],
        port: int,
    ) -> None:
        self.writer = None if ledger is None else ledger()
        self.text = TextExposition(share_seconds=_SHARE_SECONDS)
        settings = config.opentelemetry
        self.push = otlp_push(settings, contextlib.nullcontext) if config.pushes else None
        self.readers = readers
        self.provider = MeterProvider(
            metric_readers=[self.text.reader, *([self.push.reader] if self.push else []), *readers],
            resource=build_resource(settings, _SERVICE_NAME, port),
            exemplar_filter=_EXEMPLAR_FILTERS[settings.exemplar_filter],
            views=views(store, config.attributes),
            shutdown_on_exit=False,
        )

    def start(self) -> None:
        if self.push:
            self.push.start()

    def shutdown(self, timeout_seconds: float) -> bool:
        written = self.writer is None or self.writer.close(timeout_seconds)
        pushed = self.push.shutdown(timeout_seconds) if self.push else True
        return written and pushed


class Worker:
    """Everything a worker process needs; make one, and record with `worker.recorder`.

    Without a `config` it is the one that `load_config` finds. Exported by OTLP if that says so, by `render`, and on
    `listen` (host:port, path /metrics) if it is given. `ledger` makes the writer, as `ledger_writer` does; None keeps
    no ledger, and leaves the attempts counter to the process. A child, forked at any moment, exports and writes for
    itself from then on, without its parent's counts; it does not listen. `shutdown` runs at exit, which neither SIGTERM
    nor the end of a child of multiprocessing comes to by itself: call it there.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        ledger: Callable[[], Writer] | None = None,
        store: Store | None = None,
        listen: str | None = None,
        readers: Callable[[], Sequence[MetricReader]] = tuple,
    ) -> None:
        self._config = load_config() if config is None else config
        for remark in self._config.remarks:
            _log.warning("%s: %s; %s", *remark)
        self._store: Store = store or ("process" if ledger is None else "ledger")
        self._make_ledger = ledger
        self._make_readers = readers
        self._is_shut_down = False
        self._inherited: list[_Process] = []
        self._process = self._for_process(parse_listen(listen)[1] if listen else os.getpid())
        self.recorder = Recorder(self._process.provider, writer=self._process.writer)
        self._process.start()
        self._server = _serve(self, *parse_listen(listen)) if listen else None
        call_in_children(self._begin_in_child)
        atexit.register(self.shutdown)

    @property
    def readers(self) -> Sequence[MetricReader]:
        """This process's, made by the argument of the same name."""
        return self._process.readers

    @property
    def address(self) -> str | None:
        """host:port that /metrics is served on; None in a child and without `listen`."""
        if self._server is None:
            return None
        host, port = self._server.server_address[:2]
        return f"{host if isinstance(host, str) else host.decode()}:{port}"

    def render(self, accept: str = "") -> tuple[str, bytes]:
        """Content type and body of /metrics for an Accept header."""
        return self._process.text.render(accept)

    def shutdown(self, timeout_seconds: float | None = None) -> bool:
        """Writes what is left, then pushes, in `timeout_seconds` each; True if nothing is left.

        The default is `otlp.shutdown_timeout_seconds`. A second call does nothing.
        """
        if self._is_shut_down:
            return True
        self._is_shut_down = True
        atexit.unregister(self.shutdown)
        limit = self._config.otlp.shutdown_timeout_seconds if timeout_seconds is None else timeout_seconds
        done = self._process.shutdown(limit)
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        return done

    def _for_process(self, port: int) -> _Process:
        return _Process(self._config, self._store, self._make_ledger, self._make_readers(), port)

    def _begin_in_child(self) -> None:
        if self._is_shut_down:
            return
        if self._server is not None:
            self._server.socket.close()
            self._server = None
        # Kept, not collected: what runs when its parts are destroyed may want locks that nobody will release.
        self._inherited.append(self._process)
        self._process = self._for_process(os.getpid())
        self.recorder.bind(self._process.provider, self._process.writer)
        self._process.start()


def _serve(worker: Worker, host: str, port: int) -> ThreadingHTTPServer:
    class Metrics(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            content_type, body = worker.render(self.headers.get("Accept", ""))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape is no news."""

    server = ThreadingHTTPServer((host, port), Metrics)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="otel-queue-metrics", daemon=True).start()
    return server
