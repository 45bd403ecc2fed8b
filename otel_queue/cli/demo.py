"""`otel-queue demo`: a Redis, a simulated Convoy workload and the exporter, in one process."""

import argparse
import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_queue.cli.numbers import number
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.serve import serve
from otel_queue.cli.stopping import stop_on_signals
from otel_queue.config import Config, RedisConfig
from otel_queue.errors import OtelQueueError

if TYPE_CHECKING:
    from otel_queue.recorder import Recorder

_LEAST_RATE: Final = 0.001
_MOST_RATE: Final = 10_000.0
# Stays the URL where nobody named one, in whatever way.
_NO_REDIS: Final = "unix:///none"


def add_command(commands: Any) -> None:
    """Adds `demo`."""
    parser = commands.add_parser("demo", help="try it: embedded Redis, simulated workload, exporter")
    seconds = number(float, 0, threading.TIMEOUT_MAX, "seconds")
    rate = number(float, _LEAST_RATE, _MOST_RATE, "events a second")
    parser.add_argument("--for", dest="seconds", type=seconds, metavar="SECONDS", help="end by itself")
    parser.add_argument("--rate", type=rate, default=5.0, metavar="EVENTS", help="events per second; default 5")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the simulation; default 1")
    add_settings(parser, ("redis", "queue", "domain", "ledger", "postgres", "server", "otlp"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        from otel_queue.demo.embedded_redis import EmbeddedRedis
        from otel_queue.demo.workload import Workload
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("otel_queue"):
            raise
        raise OtelQueueError(
            f"the demo needs more packages: from a checkout, pip install '.[demo]' ({error})"
        ) from error
    stop = stop_on_signals()
    with contextlib.ExitStack() as stack:
        # Memory is sampled every few seconds here: nobody watches a demo for five minutes.
        defaults = {"domain.source": "ledger", "queue.memory_interval_seconds": "5"}
        if settings_of(options, {"redis.url": _NO_REDIS}).redis == RedisConfig(_NO_REDIS):
            redis = stack.enter_context(EmbeddedRedis())
            defaults["redis.url"] = redis.url
            if not redis.is_real:  # fakeredis knows neither Lua nor MEMORY
                defaults |= {"domain.source": "none", "queue.memory_interval_seconds": "0"}
        config = settings_of(options, defaults)
        recorder = stack.enter_context(_recording(config)) if config.reads("ledger") else None
        workload = Workload(config.redis.location.reveal(), rate=options.rate, seed=options.seed, recorder=recorder)
        if options.seconds is not None:
            timer = threading.Timer(options.seconds, stop.set)
            timer.daemon = True
            timer.start()
        workload.start()
        stack.callback(workload.stop)
        print(_what_to_open(config.server.listen, str(config.redis.location)), file=sys.stderr, flush=True)
        return serve(config, stop, scrapes_itself=True)


@contextlib.contextmanager
def _recording(config: Config) -> "Iterator[Recorder]":
    """A recorder that writes the ledger, which is begun if it has not been."""
    from opentelemetry.metrics import NoOpMeterProvider

    from otel_queue.ledger.connect import ledger_store, ledger_upkeep
    from otel_queue.ledger.writer import BufferedWriter
    from otel_queue.recorder import Recorder

    ledger_upkeep(config).begin()
    writer = BufferedWriter(ledger_store(config), flush_at_exit=False)
    # The simulated agents' own instruments are nobody's here: their durations would be invented.
    yield Recorder(NoOpMeterProvider(), writer=writer)
    writer.close(2.0)


def _what_to_open(listen: str, redis: str) -> str:
    beside = Path(sys.executable).with_name("otel-queue")
    command = "otel-queue" if shutil.which("otel-queue") or not beside.exists() else os.path.relpath(beside)
    return f"""
otel-queue demo: a simulated Convoy on Asynq, measured by the exporter
  open     http://{listen}/          the status page
           http://{listen}/metrics   what Prometheus scrapes
  try      curl -s http://{listen}/metrics | grep convoy_
           {command} inspect --redis-url {redis}
           {command} ledger show --redis-url {redis}
  stop     Ctrl-C
"""
