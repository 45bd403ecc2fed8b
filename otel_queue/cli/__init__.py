"""The command line: parse, call, print.

Results go to stdout, diagnostics to stderr. Exit status: 0 fine, 1 a finding, 2 usage or configuration,
3 unreachable.
"""

import argparse
import contextlib
import logging
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from otel_queue.cli.output import Output, OutputError
from otel_queue.config.standard_variables import standard_variables_set
from otel_queue.errors import ConfigError, OtelQueueError, QueueNotFoundError, ReadError
from otel_queue.version import __version__

FINE, FINDING, USAGE, UNREACHABLE = 0, 1, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; an expected error has no traceback."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    output = Output(sys.stdout)
    try:
        with contextlib.redirect_stdout(cast(TextIO, output)):
            status: int = options.run(options)
        output.flush()
    except ConfigError as error:
        for fault in error.faults:
            print(f"otel-queue: {fault}", file=sys.stderr)
        return USAGE
    except QueueNotFoundError as error:
        print(f"otel-queue: {error}", file=sys.stderr)
        return FINDING
    except ReadError as error:
        print(f"otel-queue: cannot be read ({error.reason}): {error}", file=sys.stderr)
        return UNREACHABLE
    except OutputError as error:
        sys.stdout = None  # or the interpreter tries it once more when it ends
        print(f"otel-queue: {error}", file=sys.stderr)
        return UNREACHABLE
    except OtelQueueError as error:
        print(f"otel-queue: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # `otel-queue ... | head`: the reader has seen enough.
        sys.stdout = None
        return FINE
    except KeyboardInterrupt:
        return FINE
    except Exception as error:
        if not (variables := standard_variables_set()) or not _is_of_opentelemetry(error):
            raise
        print(f"otel-queue: OpenTelemetry refuses one of {', '.join(variables)}: {error}", file=sys.stderr)
        return USAGE
    return status


def _is_of_opentelemetry(error: BaseException) -> bool:
    """Whether its packages raised it: they read their variables when they are imported and set up."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("opentelemetry.")


def _parser() -> argparse.ArgumentParser:
    # Imported here, not above, so that only what a command needs is loaded: --help stays quick.
    from otel_queue.cli import catalog, check, demo, follow, inspect, ledger, reconcile, seed, serve, shadow

    parser = argparse.ArgumentParser(
        prog="otel-queue", description="Asynq queue state through OpenTelemetry: Prometheus pull and OTLP push."
    )
    parser.add_argument("--version", action="version", version=f"otel-queue {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log more, to stderr")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (serve, check, inspect, ledger, follow, seed, reconcile, shadow, catalog, demo):
        module.add_command(commands)
    return parser
