"""OpenTelemetry's own variables, one row each: what becomes of it here. docs/configuration.md is made of them."""

import os
from typing import Final, Literal, NamedTuple

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL: Final = "OTEL_EXPORTER_OTLP_PROTOCOL"
HEADERS: Final = "OTEL_EXPORTER_OTLP_HEADERS"
TIMEOUT: Final = "OTEL_EXPORTER_OTLP_TIMEOUT"
COMPRESSION: Final = "OTEL_EXPORTER_OTLP_COMPRESSION"
CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CERTIFICATE"
CLIENT_CERTIFICATE: Final = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"
CLIENT_KEY: Final = "OTEL_EXPORTER_OTLP_CLIENT_KEY"
INSECURE: Final = "OTEL_EXPORTER_OTLP_INSECURE"
EXPORTER: Final = "OTEL_METRICS_EXPORTER"
TEMPORALITY: Final = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
HISTOGRAMS: Final = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
EXEMPLARS: Final = "OTEL_METRICS_EXEMPLAR_FILTER"
INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
EXPORT_TIMEOUT: Final = "OTEL_METRIC_EXPORT_TIMEOUT"
SERVICE_NAME: Final = "OTEL_SERVICE_NAME"
RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
DETECTORS: Final = "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"
SDK_DISABLED: Final = "OTEL_SDK_DISABLED"
SEMCONV: Final = "OTEL_SEMCONV_STABILITY_OPT_IN"


class StandardVariable(NamedTuple):
    """One variable. `of_signal` is its name for metrics alone, which wins. `said` is for the docs and its sentence."""

    name: str
    fate: Literal["honoured", "refused", "no effect"]
    said: str

    @property
    def of_signal(self) -> str | None:
        """Such as OTEL_EXPORTER_OTLP_METRICS_ENDPOINT for OTEL_EXPORTER_OTLP_ENDPOINT."""
        return for_metrics(self.name) if self.name in _GENERAL else None


def for_metrics(name: str) -> str:
    """The name of an exporter's variable for metrics alone."""
    return name.replace("OTLP_", "OTLP_METRICS_")


_GENERAL: Final = frozenset(
    {ENDPOINT, PROTOCOL, HEADERS, TIMEOUT, COMPRESSION, CERTIFICATE, CLIENT_CERTIFICATE, CLIENT_KEY, INSECURE}
)
_NOT_READ: Final = "is not read; unset it for this process, and use variables and the file of --config"
_LISTENS: Final = "`server.listen` of `serve`, and `listen` of a worker, say where /metrics is"

STANDARD_VARIABLES: Final = tuple(
    StandardVariable(*row)
    for row in (
        (EXPORTER, "honoured", "`otlp` pushes, `prometheus` and `none` do not; several with commas between them. "
            "Unset: push if an endpoint is set. It takes no /metrics away, neither `serve`'s nor a worker's `listen`"),
        (ENDPOINT, "honoured", "where to push; /v1/metrics is added for HTTP. One with a password is refused"),
        (PROTOCOL, "honoured", "`http/protobuf` (the default) or `grpc`"),
        (HEADERS, "honoured", "name=value, several with commas between them; the values are secrets"),
        (TIMEOUT, "honoured", "seconds, as Python's exporters have it (Go's take milliseconds); 10. A push is given up "
            "after its interval, or 10 s if that is longer, whatever this says"),
        (COMPRESSION, "honoured", "`none` (the default) or `gzip`; by HTTP also `deflate`"),
        (CERTIFICATE, "honoured", "file of the authorities to trust; by HTTP `REQUESTS_CA_BUNDLE` is before it"),
        (CLIENT_CERTIFICATE, "honoured", "file of the client's certificate"),
        (CLIENT_KEY, "honoured", "file of its key"),
        (INSECURE, "honoured", "`true`: gRPC without TLS, where the endpoint has neither http:// nor https://"),
        (TEMPORALITY, "honoured", "by workers: what a failed push carried is lost with `delta` and `lowmemory`. "
            "`serve` stays cumulative and warns, since its counters are totals of Redis and the ledger"),
        (HISTOGRAMS, "honoured", "by what workers push; /metrics has explicit buckets, and `serve` has no histograms"),
        (EXEMPLARS, "honoured", "by workers: `trace_based` (the default), `always_on` or `always_off`"),
        (INTERVAL, "honoured", "milliseconds from push to push; 60000"),
        (EXPORT_TIMEOUT, "honoured", "milliseconds that a push may take, if that is less than its other limits"),
        (SERVICE_NAME, "honoured", "`service.name`; `otel-queue`, and a worker's `otel-queue-worker`"),
        (RESOURCE, "honoured", "name=value, several with commas between them. `service.instance.id` is host:port "
            "unless it is here, so it survives a restart"),
        (DETECTORS, "honoured", "names of detectors that are installed, or `*`"),
        (SDK_DISABLED, "refused", "nothing would be exported; unset it to run otel-queue"),
        ("OTEL_CONFIG_FILE", "refused", _NOT_READ),
        ("OTEL_EXPERIMENTAL_CONFIG_FILE", "refused", _NOT_READ),
        ("OTEL_EXPORTER_PROMETHEUS_HOST", "no effect", _LISTENS),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "no effect", _LISTENS),
        ("OTEL_LOG_LEVEL", "no effect", "`otel-queue --verbose` logs more"),
        (SEMCONV, "no effect", "there are no metrics by the messaging conventions; told if the value names them"),
    )
)  # fmt: skip

_OWN_PREFIX: Final = "OTEL_QUEUE_"
_KNOWN: Final = frozenset(name for row in STANDARD_VARIABLES for name in (row.name, row.of_signal))
_OF_METRICS: Final = ("OTEL_METRIC", "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_PROMETHEUS_")
_OTHER_SIGNALS: Final = ("OTLP_TRACES_", "OTLP_LOGS_", "OTLP_PROFILES_")


def is_unknown(name: str) -> bool:
    """Whether a variable looks like one for metrics, and none is called so."""
    ours = name.startswith(_OF_METRICS) and not any(signal in name for signal in _OTHER_SIGNALS)
    return ours and name not in _KNOWN


def standard_variables_set() -> list[str]:
    """The names of OpenTelemetry's own that are set in the process, sorted: its packages may refuse one at import."""
    return sorted(name for name in os.environ if name.startswith("OTEL_") and not name.startswith(_OWN_PREFIX))
