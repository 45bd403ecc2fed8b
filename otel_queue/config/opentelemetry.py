"""What OpenTelemetry's own variables say: each is honoured, refused with a sentence, or told to have no effect."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

from otel_queue.config import standard_variables as names
from otel_queue.config.checks import MOST_SECONDS, is_file
from otel_queue.config.secret import Secret

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]
Temporality = Literal["cumulative", "delta", "lowmemory"]
Histograms = Literal["explicit_bucket_histogram", "base2_exponential_bucket_histogram"]
ExemplarFilter = Literal["trace_based", "always_on", "always_off"]
# The first of each is the default.
_PROTOCOLS: Final[tuple[Protocol, ...]] = ("http/protobuf", "grpc")
_COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "deflate")
_TEMPORALITIES: Final[tuple[Temporality, ...]] = ("cumulative", "delta", "lowmemory")
_HISTOGRAMS: Final[tuple[Histograms, ...]] = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")
_EXEMPLAR_FILTERS: Final[tuple[ExemplarFilter, ...]] = ("trace_based", "always_on", "always_off")
_EXPORTERS: Final = ("otlp", "prometheus", "none")

_TIMEOUT_SECONDS: Final = 10.0
_PATH: Final = "/v1/metrics"
_LOCAL: Final[Mapping[Protocol, str]] = {"http/protobuf": "http://localhost:4318", "grpc": "http://localhost:4317"}
# What OpenTelemetry's own parser takes. A header that it does not take it logs, with the secret in it.
_HEADER: Final = re.compile(r"\s*[\w!#$%&'*+.^`|~-]+\s*=[ !#-+\--:<-\[\]-~]*\s*", re.ASCII)
_Choice = TypeVar("_Choice", bound=str)


class Remark(NamedTuple):
    """A variable that is set and does not do what somebody may expect of it, and what to do."""

    variable: str
    said: str
    advice: str


@dataclass(frozen=True, slots=True)
class OpenTelemetryConfig:
    """What the variables say, for exporters, readers and the resource to get as arguments. `endpoint` is complete."""

    asks_for_push: bool = False
    protocol: Protocol = "http/protobuf"
    endpoint: str = _LOCAL["http/protobuf"] + _PATH
    is_insecure: bool = True
    headers: Mapping[str, Secret] = field(default_factory=dict)
    compression: Compression = "none"
    certificate_file: Path | None = None
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None
    interval_seconds: float = 60.0
    timeout_seconds: float = _TIMEOUT_SECONDS
    temporality: Temporality = "cumulative"
    histograms: Histograms = "explicit_bucket_histogram"
    exemplar_filter: ExemplarFilter = "trace_based"
    resource: Mapping[str, str] = field(default_factory=dict)
    resource_detectors: tuple[str, ...] = ()


class StandardVariables:
    """Reads the variables of one environment; `faults` gets a sentence for each that is refused, without a secret."""

    def __init__(self, environment: Mapping[str, str], faults: list[str]) -> None:
        self._environment = environment
        self._faults = faults

    def read(self, push: bool | None) -> OpenTelemetryConfig:
        """What they say. Where to push is looked at only if anybody does: by `push`, else as they say themselves."""
        self._refuse()
        asked = self._asks_for_push()
        read = OpenTelemetryConfig(
            asks_for_push=asked,
            protocol=self._one_of(self._name(names.PROTOCOL), _PROTOCOLS),
            temporality=self._one_of(names.TEMPORALITY, _TEMPORALITIES),
            histograms=self._one_of(names.HISTOGRAMS, _HISTOGRAMS),
            exemplar_filter=self._one_of(names.EXEMPLARS, _EXEMPLAR_FILTERS),
            resource=self._resource(),
            resource_detectors=self._detectors(),
            **self._times(),
        )
        return self._with_target(read) if (asked if push is None else push) else read

    def remarks(self) -> Iterator[Remark]:
        """What is set and has no effect."""
        for row in names.STANDARD_VARIABLES:
            told = row.name != names.SEMCONV or "messaging" in self._text(row.name)
            if row.fate == "no effect" and self._text(row.name) and told:
                yield Remark(row.name, "has no effect", row.said)
        for name in sorted(filter(names.is_unknown, self._environment)):
            yield Remark(name, "no such variable is known here", "unset it, or see docs/configuration.md")

    def _text(self, name: str) -> str:
        return self._environment.get(name, "").strip()

    def _name(self, general: str) -> str:
        """The variable that counts: the one for metrics alone, where it is set."""
        return alone if self._text(alone := names.for_metrics(general)) else general

    def _refuse(self) -> None:
        for row in names.STANDARD_VARIABLES:
            is_set = self._text(row.name)
            if row.fate == "refused" and is_set and (row.name != names.SDK_DISABLED or is_set.lower() == "true"):
                self._faults.append(f"{row.name}: {row.said}")

    def _one_of(self, name: str, allowed: tuple[_Choice, ...]) -> _Choice:
        text = self._text(name)
        for choice in allowed:
            if text.lower() == choice:
                return choice
        if text:
            self._faults.append(f"{name}: must be {' or '.join(allowed)}, not {text!r}")
        return allowed[0]

    def _number(self, name: str, default: float, unit: str, least: float, most: float) -> float:
        text = self._text(name)
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number <= most:
            self._faults.append(f"{name}: must be {unit}, from {least:g} to {most:.0f}, not {text!r}")
            return default
        return number

    def _asks_for_push(self) -> bool:
        text = self._text(names.EXPORTER)
        named = {name for part in text.lower().split(",") if (name := part.strip())}
        if named - set(_EXPORTERS):
            said = f"must be {' or '.join(_EXPORTERS)}, several with commas between them, not {text!r}"
            self._faults.append(f"{names.EXPORTER}: {said}")
        elif "none" in named and len(named) > 1:
            self._faults.append(f"{names.EXPORTER}: none stands alone, and this is {text!r}")
        return "otlp" in named if named else bool(self._text(self._name(names.ENDPOINT)))

    def _times(self) -> dict[str, Any]:
        """Interval and timeout. Other languages take the exporters' timeout in milliseconds: what was meant for a Go
        worker must not keep a push waiting for hours for a Collector that hangs.
        """
        most = MOST_SECONDS * 1000.0
        interval = self._number(names.INTERVAL, 60_000.0, "milliseconds", 1, most) / 1000
        limit = self._number(names.EXPORT_TIMEOUT, most, "milliseconds", 1, most) / 1000
        asked = self._number(self._name(names.TIMEOUT), _TIMEOUT_SECONDS, "seconds", 0.001, MOST_SECONDS)
        timeout = min(asked, max(interval, _TIMEOUT_SECONDS), limit)
        return {"interval_seconds": interval, "timeout_seconds": timeout}

    def _pairs(self, name: str) -> Iterator[tuple[str, str]]:
        """The name=value of a list; one that is none is a fault that does not repeat it."""
        for part in filter(None, map(str.strip, self._text(name).split(","))):
            key, equals, value = part.partition("=")
            if not equals or not key.strip():
                self._faults.append(f"{name}: must be name=value, several with commas between them; one is not")
                return
            yield unquote(key).strip(), unquote(value).strip()

    def _resource(self) -> Mapping[str, str]:
        service = self._text(names.SERVICE_NAME)
        return dict(self._pairs(names.RESOURCE)) | ({"service.name": service} if service else {})

    def _detectors(self) -> tuple[str, ...]:
        named = tuple(filter(None, map(str.strip, self._text(names.DETECTORS).split(","))))
        if named:
            from importlib.metadata import entry_points  # slow, and for this alone

            installed = entry_points(group="opentelemetry_resource_detector").names
            for name in named:
                if name not in installed and name != "*":
                    self._faults.append(f"{names.DETECTORS}: there is no detector {name!r}; {', '.join(installed)}")
        return named

    def _with_target(self, read: OpenTelemetryConfig) -> OpenTelemetryConfig:
        """With what the exporters would only find when they push, and then log with all that is in it."""
        endpoint, scheme = self._endpoint(read.protocol)
        compression = self._one_of(self._name(names.COMPRESSION), _COMPRESSIONS)
        if compression == "deflate" and read.protocol == "grpc":
            self._faults.append(f"{self._name(names.COMPRESSION)}: must be none or gzip with grpc, not 'deflate'")
        insecure = self._one_of(self._name(names.INSECURE), ("false", "true")) == "true"
        certificate, key = self._file(names.CLIENT_CERTIFICATE), self._file(names.CLIENT_KEY)
        if key and not certificate:
            self._faults.append(f"{self._name(names.CLIENT_KEY)}: needs {names.CLIENT_CERTIFICATE}")
        elif certificate and not key and read.protocol == "grpc":
            self._faults.append(f"{self._name(names.CLIENT_CERTIFICATE)}: needs {names.CLIENT_KEY}")
        return replace(
            read,
            endpoint=endpoint,
            is_insecure=scheme == "http" or (scheme != "https" and insecure),
            headers=self._headers(),
            compression=compression,
            certificate_file=self._file(names.CERTIFICATE),
            client_certificate_file=certificate,
            client_key_file=key,
        )

    def _endpoint(self, protocol: Protocol) -> tuple[str, str]:
        """Where to, and its scheme."""
        name = self._name(names.ENDPOINT)
        text = self._text(name) or _LOCAL[protocol]
        try:
            url = urlsplit(text)
            scheme, is_url = url.scheme, url.scheme in ("http", "https") and bool(url.hostname)
        except ValueError:
            scheme, is_url = "", False
        if "@" in text:
            self._faults.append(f"{name}: must have no user or password, which would be logged; {names.HEADERS} may")
        elif not is_url and protocol != "grpc":
            self._faults.append(f"{name}: must be a URL, as in {_LOCAL[protocol]}")
        is_base = protocol != "grpc" and name == names.ENDPOINT
        return (text.removesuffix("/") + _PATH if is_base else text), scheme

    def _headers(self) -> Mapping[str, Secret]:
        name = self._name(names.HEADERS)
        headers: dict[str, Secret] = {}
        for place, header in enumerate(self._environment.get(name, "").split(","), start=1):
            key, _, value = (unquote(part).strip() for part in header.partition("="))
            # What is sent must be of one line: the HTTP client quotes a value that is not.
            if header.strip() and not (_HEADER.fullmatch(header) and (key + value).isprintable() and value.isascii()):
                said = "several with commas between them, and what is special in a value percent-encoded"
                self._faults.append(f"{name}: must be name=value in one line, {said}; number {place} is not")
            elif header.strip():
                headers[key.lower()] = Secret(value)
        return headers

    def _file(self, general: str) -> Path | None:
        name = self._name(general)
        text = self._text(name)
        if text and not is_file(Path(text)):
            self._faults.append(f"{name}: {text} is not a file")
        return Path(text) if text else None
