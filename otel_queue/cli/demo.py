"""`otel-queue demo`: a Redis, a simulated Convoy workload and the exporter, in one process."""

import argparse
import contextlib
import sys
import threading
from typing import Any

from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.serve import serve, stop_on_signals
from otel_queue.errors import OtelQueueError


def add_command(commands: Any) -> None:
    """Adds `demo`."""
    parser = commands.add_parser("demo", help="try it: embedded Redis, simulated workload, exporter")
    parser.add_argument("--for", dest="seconds", type=float, metavar="SECONDS", help="end by itself")
    parser.add_argument("--rate", type=float, default=5.0, metavar="EVENTS", help="events per second; default 5")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the simulation; default 1")
    add_settings(parser, ("redis", "queue", "ledger", "server", "otlp"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        from otel_queue.demo.embedded_redis import EmbeddedRedis
        from otel_queue.demo.workload import Workload
    except ImportError as error:
        raise OtelQueueError(f"the demo needs more packages: pip install 'otel-queue[demo]' ({error})") from error
    stop = stop_on_signals()
    with contextlib.ExitStack() as stack:
        # Memory is sampled every few seconds here: nobody watches a demo for five minutes.
        memory_interval = "5"
        if getattr(options, "redis.url") is None:
            redis = stack.enter_context(EmbeddedRedis())
            setattr(options, "redis.url", redis.url)
            if not redis.is_real:
                memory_interval = "0"  # fakeredis does not know MEMORY
        if getattr(options, "queue.memory_interval_seconds") is None:
            setattr(options, "queue.memory_interval_seconds", memory_interval)
        config = settings_of(options)
        workload = Workload(config.redis.url, rate=options.rate, seed=options.seed)
        if options.seconds is not None:
            timer = threading.Timer(options.seconds, stop.set)
            timer.daemon = True
            timer.start()
        workload.start()
        stack.callback(workload.stop)
        print(_what_to_open(config.server.listen, str(config.redis.location)), file=sys.stderr, flush=True)
        serve(config, stop)
    return 0


def _what_to_open(listen: str, redis: str) -> str:
    return f"""
otel-queue demo: a simulated Convoy on Asynq, measured by the exporter
  open     http://{listen}/          lanes and their state
           http://{listen}/metrics   what Prometheus scrapes
  try      curl -s http://{listen}/metrics | grep convoy_
           otel-queue inspect --redis-url {redis}
  stop     Ctrl-C
"""
