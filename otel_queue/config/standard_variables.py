"""OpenTelemetry's own variables, as far as they say whether, how and how often to push."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from otel_queue.config.settings import Config

_TIMEOUT_SECONDS: Final = 10.0
# What OpenTelemetry's own parser takes. A header that it does not take it logs, with the secret in it.
_HEADER: Final = re.compile(r"\s*[\w!#$%&'*+.^`|~-]+\s*=[ !#-+\--:<-\[\]-~]*\s*", re.ASCII)


def otlp_wanted(config: Config, environment: Mapping[str, str] | None = None) -> bool:
    """Whether to push: as configured, else when a standard variable names an OTLP endpoint or exporter."""
    environment = os.environ if environment is None else environment
    exporters = environment.get("OTEL_METRICS_EXPORTER", "").replace(" ", "").split(",")
    if config.otlp.enabled is not None:
        return config.otlp.enabled
    if "none" in exporters:
        return False
    endpoints = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return "otlp" in exporters or any(environment.get(name) for name in endpoints)


def otlp_protocol(environment: Mapping[str, str] | None = None) -> str:
    """`http/protobuf` (the default) or `grpc`, by the standard variables; raises ValueError for others."""
    environment = os.environ if environment is None else environment
    name = "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"
    chosen = environment.get(name) or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    if chosen not in ("http/protobuf", "grpc"):
        raise ValueError(f"OTLP protocol {chosen!r} is not supported; use http/protobuf or grpc")
    return chosen


def export_interval_seconds(environment: Mapping[str, str] | None = None) -> float:
    """Seconds between pushes, from OTEL_METRIC_EXPORT_INTERVAL (milliseconds, default 60000)."""
    environment = os.environ if environment is None else environment
    milliseconds = _number(environment, ("OTEL_METRIC_EXPORT_INTERVAL",), 60_000.0, "milliseconds", least=1)
    return milliseconds / 1000


def export_timeout_seconds(environment: Mapping[str, str] | None = None) -> float:
    """Seconds that one push may take: the standard variable's, 10 by default; more only if its interval is longer.

    Python's exporters take that variable in seconds, other languages in milliseconds: what was meant for a Go worker
    must not keep a push waiting for hours for a Collector that hangs.
    """
    environment = os.environ if environment is None else environment
    names = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
    asked = _number(environment, names, _TIMEOUT_SECONDS, "seconds", least=0.001)
    return min(asked, max(export_interval_seconds(environment), _TIMEOUT_SECONDS))


def faults_of_standard_variables(config: Config, environment: Mapping[str, str]) -> list[str]:
    """What is wrong with OpenTelemetry's own variables, a sentence each; no value that may hold a secret is in it."""
    faults = []
    for check in (otlp_protocol, export_interval_seconds, export_timeout_seconds):
        try:
            check(environment)
        except ValueError as error:
            faults.append(str(error))
    if not faults and otlp_wanted(config, environment):
        faults += _faults_of_target(environment)
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        faults.append("OTEL_SDK_DISABLED=true: nothing would be exported; unset it to run otel-queue")
    return list(dict.fromkeys(faults))


def _faults_of_target(environment: Mapping[str, str]) -> Iterator[str]:
    """What the exporters would only find when they push, and then log with all that is in it."""
    for name in ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        endpoint = environment.get(name, "")
        try:
            url = urlsplit(endpoint)
            is_url = url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:
            is_url = False
        if "@" in endpoint:
            yield f"{name}: must have no user or password, which would be logged; OTEL_EXPORTER_OTLP_HEADERS may"
        elif endpoint and not is_url and otlp_protocol(environment) != "grpc":
            yield f"{name}: must be a URL, as in http://127.0.0.1:4318"
    for name in ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"):
        for place, header in enumerate(environment.get(name, "").split(","), start=1):
            # What is sent must be of one line: the HTTP client quotes a value that is not.
            if header.strip() and not (_HEADER.fullmatch(header) and unquote(header.strip()).isprintable()):
                yield (
                    f"{name}: must be name=value in one line, several with commas between them, and what is special "
                    f"in a value percent-encoded; number {place} is not"
                )


def _number(
    environment: Mapping[str, str], names: tuple[str, ...], default: float, unit: str, *, least: float
) -> float:
    """The number in the first of these variables that is set."""
    name = next((name for name in names if environment.get(name)), None)
    if name is None:
        return default
    try:
        number = float(environment[name])
    except ValueError:
        number = 0.0
    if not least <= number < float("inf"):
        raise ValueError(f"{name} must be {unit}, at least {least:g}, not {environment[name]!r}")
    return number
