"""OpenTelemetry's own variables in the configuration: each has its row, and what it says there is so."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import environment_variables as of_api
from opentelemetry.sdk import environment_variables as of_sdk

import otel_queue
from otel_queue.config import Config, OpenTelemetryConfig, Remark, Secret, load_config
from otel_queue.config import standard_variables as names
from otel_queue.config.standard_variables import STANDARD_VARIABLES
from otel_queue.errors import ConfigError

# Spans, logs and profiles are the application's; the SDK itself reads what is Python's alone.
NOT_OURS = ("TRACES_", "TRACER", "LOGS_", "LOGRECORD_", "BSP_", "BLRP_", "SPAN_", "EVENT_", "LINK_", "ZIPKIN_",
            "PYTHON_", "PROPAGATORS", "ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE")  # fmt: skip
OTLP = "OTEL_EXPORTER_OTLP_"
PUSHES = {"OTEL_METRICS_EXPORTER": "otlp"}
FILE = Path(__file__)


def load(environment: Mapping[str, str]) -> Config:
    return load_config({}, environment)


def faults(environment: Mapping[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(environment)
    return "\n".join(caught.value.faults)


def test_every_variable_that_the_sdk_knows_has_a_row_or_is_of_another_signal() -> None:
    known = {
        value
        for module in (of_api, of_sdk)
        for name, value in vars(module).items()
        if name.lstrip("_").startswith("OTEL_") and isinstance(value, str)
    }
    assert len(known) > 80
    rows = {name for row in STANDARD_VARIABLES for name in (row.name, row.of_signal)}
    missing = {name for name in known - rows if not any(part in name for part in NOT_OURS)}
    assert not missing


# What each variable that is honoured makes of the configuration: the row, a value, and the field that changes to what.
HONOURED: tuple[tuple[str, str, str, Any], ...] = (
    ("OTEL_METRICS_EXPORTER", "otlp", "asks_for_push", True),
    (f"{OTLP}ENDPOINT", "http://c:4318/", "endpoint", "http://c:4318/v1/metrics"),
    (f"{OTLP}METRICS_ENDPOINT", "http://c:4318/own", "endpoint", "http://c:4318/own"),
    (f"{OTLP}PROTOCOL", "GRPC", "protocol", "grpc"),
    (f"{OTLP}HEADERS", "A=b%3Dc, d = Bearer e ,", "headers", {"a": Secret("b=c"), "d": Secret("Bearer e")}),
    (f"{OTLP}TIMEOUT", "3", "timeout_seconds", 3.0),
    (f"{OTLP}COMPRESSION", "gzip", "compression", "gzip"),
    (f"{OTLP}CERTIFICATE", str(FILE), "certificate_file", FILE),
    (f"{OTLP}CLIENT_CERTIFICATE", str(FILE), "client_certificate_file", FILE),
    (f"{OTLP}CLIENT_KEY", str(FILE), "client_key_file", FILE),
    (f"{OTLP}INSECURE", "true", "is_insecure", True),
    (names.TEMPORALITY, "Delta", "temporality", "delta"),
    (names.HISTOGRAMS, "base2_exponential_bucket_histogram", "histograms", "base2_exponential_bucket_histogram"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off", "exemplar_filter", "always_off"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "500", "interval_seconds", 0.5),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "1500", "timeout_seconds", 1.5),
    ("OTEL_SERVICE_NAME", "mine", "resource", {"service.name": "mine"}),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b%2Cc, service.name = s", "resource", {"a": "b,c", "service.name": "s"}),
    ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "process, *", "resource_detectors", ("process", "*")),
)  # fmt: skip
# What goes with it, so that it is right.
BESIDE = {
    f"{OTLP}CLIENT_KEY": {f"{OTLP}CLIENT_CERTIFICATE": str(FILE)},
    f"{OTLP}INSECURE": {f"{OTLP}ENDPOINT": "c:4317", f"{OTLP}PROTOCOL": "grpc"},
}


def test_the_table_of_what_is_honoured_is_whole() -> None:
    assert {name.replace("OTLP_METRICS_E", "OTLP_E") for name, *_ in HONOURED} == {
        row.name for row in STANDARD_VARIABLES if row.fate == "honoured"
    }


@pytest.mark.parametrize(("name", "text", "field", "expected"), HONOURED, ids=[row[0] for row in HONOURED])
def test_a_variable_is_honoured(name: str, text: str, field: str, expected: object) -> None:
    beside = PUSHES | BESIDE.get(name, {})
    read = load(beside | {name: text}).opentelemetry
    assert getattr(read, field) == expected
    without = {each: value for each, value in beside.items() if each != name}
    assert getattr(load(without).opentelemetry, field) != expected


@pytest.mark.parametrize("row", [row for row in STANDARD_VARIABLES if row.of_signal], ids=lambda row: row.name)
def test_the_variable_for_metrics_alone_wins(row: names.StandardVariable) -> None:
    [(_, text, field, expected)] = [each for each in HONOURED if each[0] == row.name]
    other = {"ENDPOINT": "http://o:1", "HEADERS": "o=o", "TIMEOUT": "1", "COMPRESSION": "none", "INSECURE": "false",
             "PROTOCOL": "http/protobuf"}.get(row.name.removeprefix(OTLP), os.__file__)  # fmt: skip
    beside = PUSHES | BESIDE.get(row.name, {})
    text, expected = ("http://c/own", "http://c/own") if field == "endpoint" else (text, expected)
    read = load(beside | {row.name: other, str(row.of_signal): text}).opentelemetry
    assert getattr(read, field) == expected


def test_an_empty_variable_is_as_none() -> None:
    assert load({name: "" for name, *_ in HONOURED}) == load({})
    assert load({}).opentelemetry == OpenTelemetryConfig()


REFUSED = [
    ({"OTEL_SDK_DISABLED": " True "}, "OTEL_SDK_DISABLED: nothing would be exported"),
    ({"OTEL_CONFIG_FILE": "f"}, "OTEL_CONFIG_FILE: is not read"),
    ({"OTEL_EXPERIMENTAL_CONFIG_FILE": "f"}, "OTEL_EXPERIMENTAL_CONFIG_FILE: is not read"),
    ({"OTEL_METRICS_EXPORTER": "otpl"}, "OTEL_METRICS_EXPORTER: must be otlp or prometheus or none"),
    ({"OTEL_METRICS_EXPORTER": "otlp,console"}, "OTEL_METRICS_EXPORTER: must be otlp or prometheus or none, several"),
    ({"OTEL_METRICS_EXPORTER": "otlp,none"}, "OTEL_METRICS_EXPORTER: none stands alone"),
    ({f"{OTLP}METRICS_PROTOCOL": "http/json"}, f"{OTLP}METRICS_PROTOCOL: must be http/protobuf or grpc"),
    ({f"{OTLP}COMPRESSION": "zstd"}, f"{OTLP}COMPRESSION: must be none or gzip or deflate, not 'zstd'"),
    (
        {f"{OTLP}COMPRESSION": "deflate", f"{OTLP}PROTOCOL": "grpc"},
        f"{OTLP}COMPRESSION: must be none or gzip with grpc",
    ),
    ({f"{OTLP}TIMEOUT": "-1"}, f"{OTLP}TIMEOUT: must be seconds"),
    ({f"{OTLP}TIMEOUT": "nan"}, f"{OTLP}TIMEOUT: must be seconds"),
    ({f"{OTLP}INSECURE": "maybe"}, f"{OTLP}INSECURE: must be false or true"),
    ({f"{OTLP}CERTIFICATE": "/none"}, f"{OTLP}CERTIFICATE: /none is not a file"),
    ({f"{OTLP}CLIENT_KEY": str(FILE)}, f"{OTLP}CLIENT_KEY: needs {OTLP}CLIENT_CERTIFICATE"),
    (
        {f"{OTLP}CLIENT_CERTIFICATE": str(FILE), f"{OTLP}PROTOCOL": "grpc"},
        f"{OTLP}CLIENT_CERTIFICATE: needs {OTLP}CLIENT_KEY",
    ),
    ({names.TEMPORALITY: "deltas"}, f"{names.TEMPORALITY}: must be cumulative or delta or lowmemory"),
    ({names.HISTOGRAMS: "exponential"}, f"{names.HISTOGRAMS}: must be explicit_bucket_histogram or base2"),
    ({"OTEL_METRICS_EXEMPLAR_FILTER": "x"}, "OTEL_METRICS_EXEMPLAR_FILTER: must be trace_based"),
    ({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}, "OTEL_METRIC_EXPORT_INTERVAL: must be milliseconds"),
    ({"OTEL_METRIC_EXPORT_INTERVAL": "1e300"}, "OTEL_METRIC_EXPORT_INTERVAL: must be milliseconds"),
    ({"OTEL_METRIC_EXPORT_TIMEOUT": "0"}, "OTEL_METRIC_EXPORT_TIMEOUT: must be milliseconds"),
    ({"OTEL_RESOURCE_ATTRIBUTES": "a"}, "OTEL_RESOURCE_ATTRIBUTES: must be name=value"),
    ({"OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "x"}, "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS: there is no detector 'x'"),
    ({f"{OTLP}ENDPOINT": "u:s3cret@c:4318"}, f"{OTLP}ENDPOINT: must have no user or password"),
    ({f"{OTLP}ENDPOINT": "http://u:s3cret@c:4318"}, f"{OTLP}ENDPOINT: must have no user or password"),
    ({f"{OTLP}METRICS_ENDPOINT": "c:4318"}, f"{OTLP}METRICS_ENDPOINT: must be a URL"),
    ({f"{OTLP}ENDPOINT": "http://["}, f"{OTLP}ENDPOINT: must be a URL"),
    ({f"{OTLP}HEADERS": "a=b, Authorization: Bearer s3cret"}, f"{OTLP}HEADERS: must be name=value"),
    ({f"{OTLP}HEADERS": "a=x%0As3cret"}, f"{OTLP}HEADERS: must be name=value in one line"),
    ({f"{OTLP}HEADERS": "a b=s3cret"}, f"{OTLP}HEADERS: must be name=value in one line"),
]


@pytest.mark.parametrize(("variables", "fault"), REFUSED, ids=[fault for _, fault in REFUSED])
def test_what_cannot_be_honoured_is_refused_with_a_sentence(variables: dict[str, str], fault: str) -> None:
    pushes = {} if "OTEL_METRICS_EXPORTER" in variables else PUSHES
    said = faults(variables | pushes)
    assert said.startswith(fault)
    assert "s3cret" not in said


def test_the_table_of_what_is_refused_is_whole() -> None:
    assert {row.name for row in STANDARD_VARIABLES if row.fate == "refused"} <= {
        name for variables, _ in REFUSED for name in variables
    }


@pytest.mark.parametrize(
    "variables",
    [
        {f"{OTLP}ENDPOINT": "collector:4317", f"{OTLP}PROTOCOL": "grpc"},
        {f"{OTLP}ENDPOINT": "https://[::1]:4318/v1", f"{OTLP}HEADERS": "a=b,c=d%3D=,"},
        {f"{OTLP}ENDPOINT": "collector:4318", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "false"},
        {"OTEL_SEMCONV_STABILITY_OPT_IN": "http/dup", "OTEL_TRACES_EXPORTER": "x", f"{OTLP}TRACES_ENDPOINT": "x"},
    ],
)
def test_what_an_exporter_takes_or_is_not_pushed_is_no_fault(variables: dict[str, str]) -> None:
    assert load(variables).remarks == ()


NO_EFFECT = [row for row in STANDARD_VARIABLES if row.fate == "no effect"]


@pytest.mark.parametrize("row", NO_EFFECT, ids=[row.name for row in NO_EFFECT])
def test_what_has_no_effect_is_told(row: names.StandardVariable) -> None:
    assert load({row.name: "messaging"}).remarks == (Remark(row.name, "has no effect", row.said),)


@pytest.mark.parametrize("name", ["OTEL_METRICS_EXPORTERS", f"{OTLP}ENDPIONT", f"{OTLP}METRICS_INTERVAL"])
def test_a_name_that_is_not_known_is_told(name: str) -> None:
    [remark] = load({name: "1"}).remarks
    assert (remark.variable, remark.said) == (name, "no such variable is known here")


def test_a_preference_that_serve_overrides_is_told_where_it_pushes() -> None:
    delta = {names.TEMPORALITY: "delta"}
    pushing = load(delta | PUSHES)
    assert pushing.remarks == ()
    [remark] = pushing.remarks_of_serve
    assert (remark.variable, remark.said) == (names.TEMPORALITY, "serve stays cumulative, and this is delta")
    assert load(delta).remarks_of_serve == ()


@pytest.mark.parametrize(
    ("environment", "pushes"),
    [
        ({}, False),
        ({f"{OTLP}ENDPOINT": "http://c:4318"}, True),
        ({f"{OTLP}METRICS_ENDPOINT": "http://c:4318/v1/metrics"}, True),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus, otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "prometheus", f"{OTLP}ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "none", f"{OTLP}ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_QUEUE_OTLP_ENABLED": "true"}, True),
        ({"OTEL_QUEUE_OTLP_ENABLED": "false", f"{OTLP}ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_whether_to_push_is_the_settings_word_then_the_exporters_then_the_endpoints(
    environment: dict[str, str], pushes: bool
) -> None:
    assert load(environment).pushes is pushes


@pytest.mark.parametrize(
    ("endpoint", "insecure", "is_insecure"),
    [
        ("http://c:4317", "false", True),
        ("https://c:4317", "true", False),
        ("c:4317", "true", True),
        ("c:4317", "", False),
    ],
)
def test_a_scheme_says_whether_grpc_is_without_tls_before_the_variable(
    endpoint: str, insecure: str, is_insecure: bool
) -> None:
    variables = {f"{OTLP}ENDPOINT": endpoint, f"{OTLP}PROTOCOL": "grpc", f"{OTLP}INSECURE": insecure}
    assert load(variables).opentelemetry.is_insecure is is_insecure


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 10),
        ({f"{OTLP}TIMEOUT": "3", f"{OTLP}METRICS_TIMEOUT": "2"}, 2),
        ({f"{OTLP}TIMEOUT": "30"}, 30),
        ({f"{OTLP}TIMEOUT": "10000"}, 60),
        ({f"{OTLP}TIMEOUT": "10000", "OTEL_METRIC_EXPORT_INTERVAL": "300"}, 10),
        ({f"{OTLP}TIMEOUT": "30", "OTEL_METRIC_EXPORT_TIMEOUT": "2500"}, 2.5),
        ({f"{OTLP}TIMEOUT": "3", "OTEL_METRIC_EXPORT_TIMEOUT": "30000"}, 3),
    ],
)
def test_a_push_may_take_what_was_asked_and_hardly_longer_than_its_interval(
    variables: dict[str, str], seconds: float
) -> None:
    assert load(variables).opentelemetry.timeout_seconds == seconds


def test_headers_are_not_shown() -> None:
    assert "s3cret" not in repr(load({f"{OTLP}ENDPOINT": "http://c:4318", f"{OTLP}HEADERS": "authorization=s3cret"}))


def test_nothing_but_the_configuration_reads_the_environment() -> None:
    package = Path(otel_queue.__file__).parent
    readers = {
        file.relative_to(package).parts[0]
        for file in package.rglob("*.py")
        if re.search(r"\bos\.environ\b|\bgetenv\(|import environ\b", file.read_text(encoding="utf-8"))
    }
    assert readers == {"config"}
