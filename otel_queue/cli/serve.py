"""`otel-queue serve`: the exporter process."""

import argparse
import logging
import threading
from typing import Any, Final

from otel_queue.cli import FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.stopping import stop_on_signals
from otel_queue.config import Config

_log: Final = logging.getLogger(__name__)


def add_command(commands: Any) -> None:
    """Adds `serve`."""
    parser = commands.add_parser("serve", help="export: /metrics for Prometheus, OTLP when an endpoint is set")
    add_settings(parser, ("redis", "queue", "domain", "ledger", "postgres", "follow", "server", "otlp"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return serve(settings_of(options), stop_on_signals())


def serve(config: Config, stop: threading.Event, *, scrapes_itself: bool = False) -> int:
    """The exit status: exports until `stop` is set, pushes a last time and ends. UNREACHABLE if its HTTP server ended.

    That is no usage error, for which nobody starts it again. `scrapes_itself` scrapes every second, so that the
    page has charts though nobody else scrapes. Raises OtelQueueError if it cannot start.
    """
    from otel_queue.config import parse_listen
    from otel_queue.pipeline import Pipeline
    from otel_queue.server.app import App
    from otel_queue.server.auth import BasicAuth
    from otel_queue.server.listener import Listener
    from otel_queue.server.web_config import WebConfig, read_web_config

    for remark in config.remarks_of_serve:
        _log.warning("%s: %s; %s", *remark)
    file = config.server.web_config_file
    web = read_web_config(file) if file else WebConfig()
    pipeline = Pipeline(config)
    auth = BasicAuth(web.basic_auth_users) if web.basic_auth_users else None
    host, port = parse_listen(config.server.listen)
    listener = Listener(App(pipeline, auth=auth, headers=web.headers), host, port, ssl_context=web.ssl_context())
    with listener:
        pipeline.start()
        _log.info("serving %s and %smetrics, reading %s", listener.url, listener.url, config.redis.location)
        while not stop.wait(1.0) and listener.is_serving:
            if scrapes_itself:
                pipeline.scrape("", 1.0)
        status = FINE if stop.is_set() else UNREACHABLE
        _log.info("stopping" if status == FINE else "stopping: there is no HTTP server any more")
        if not pipeline.shutdown():
            _log.warning("the last OTLP push did not arrive")
        return status
