"""Configuration that nobody meant: every fault is a ConfigError's line, and no secret is in any of them."""

import argparse
import contextlib
import io
import traceback
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from otel_queue.cli.options import add_settings, settings_of
from otel_queue.config import Config, RedisConfig, Secret, load_config
from otel_queue.config.redis_url import RedisUrl, parse_redis_url
from otel_queue.config.settings import SECTIONS, all_settings
from otel_queue.config.standard_variables import STANDARD_VARIABLES
from otel_queue.errors import ConfigError, ReadError
from otel_queue.export.otlp import otlp_exporter
from otel_queue.export.resource import build_resource
from otel_queue.postgres.dsn import Dsn
from otel_queue.redis_client import connect, request
from tests.fuzz.budget import CONFIGS, EXAMPLES, counted, fuzzed, seeded
from tests.fuzz.mutation import mutate, random_bytes
from tests.fuzz.odd import HARD_TEXTS, any_text

pytestmark = pytest.mark.timeout(900)

SECRET = "tr0ub4dor"
EXAMPLE = (Path(__file__).parents[2] / "examples" / "otel-queue.toml").read_bytes()
WHOLE = [
    EXAMPLE,
    b'[domain]\nsource = "ledger"\nshadow = "none"\n[domain.metrics.convoy_event_queue_total]\nabsolute = 3\n'
    b'relative = 0.5\nsource = "ledger"\n[attributes]\nasynq_queue_size = ["queue"]\n[queue]\nworkers = false\n',
]
ODD = [
    b"[" * 3_000, b"=" + b"[" * 3_000, b"9" * 5_000, b"0x" + b"f" * 5_000, b"1e400", b"nan", b"-inf", b'"\\u0000"',
    b'"\\ud800"', b"1979-05-27", b"[]", b"{}", b'""', b"true", b"[[redis]]", b"{a.b.c = 1}", b"\xff", b"\r",
]  # fmt: skip
SETTINGS = all_settings()


def assert_faults(error: ConfigError) -> None:
    """At least one line is told, and the secret is neither in it nor in a traceback."""
    assert error.faults
    assert all(type(fault) is str and fault for fault in error.faults)
    assert SECRET not in "".join(traceback.format_exception(error))


def checked(**given: Any) -> Config | None:
    """The configuration, None if it is refused; anything but a ConfigError passes."""
    try:
        config = load_config(given.get("arguments"), given.get("environment", {}), given.get("file"))
    except ConfigError as error:
        assert_faults(error)
        return None
    assert SECRET not in repr(config)
    assert SECRET not in str(config.redis.location)
    return config


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    chance = seeded("toml")
    file = tmp_path / "c.toml"
    refused = 0
    for _ in counted(CONFIGS, "toml"):
        data = mutate(chance.choice(WHOLE), chance) if chance.random() < 0.9 else random_bytes(chance)
        if chance.random() < 0.3:
            place = data.find(b"= ", chance.randrange(len(data) + 1)) + 2
            data = data[:place] + chance.choice(ODD) + b"\n" + data[place:]
        file.write_bytes(data)
        refused += checked(file=file) is None
    assert refused


def written(value: Any) -> str:
    """A value as TOML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(letter):08x}" for letter in value) + '"'
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return hex(value) if isinstance(value, int) and value > 2**64 else str(value)


value = st.one_of(
    any_text.map(lambda text: text.encode("utf-8", "replace").decode()),
    st.booleans(), st.integers(-3, 100), st.just(1 << 16_000), st.sampled_from([0.0, 1.5, float("inf"), float("nan")]),
    st.lists(st.integers(0, 3), max_size=2), st.just("ledger"), st.just("postgres"),
)  # fmt: skip
PLACES = [*((item.section, item.field.name) for item in SETTINGS), ("domain", "metrics"), ("domain", "unheard_of")]
METRIC = "domain.metrics.convoy_event_queue_total"
METRIC_KEYS = ("source", "fallback", "shadow", "absolute", "relative", "age_seconds", "unheard_of")


@fuzzed(
    EXAMPLES,
    settings=st.dictionaries(st.sampled_from(PLACES), value, max_size=4),
    metric=st.dictionaries(st.sampled_from(METRIC_KEYS), value, max_size=3),
)
def test_settings_of_any_type_are_taken_or_each_is_told(
    tmp_path: Path, settings: dict[tuple[str, str], Any], metric: dict[str, Any]
) -> None:
    lines = [f"{section}.{name} = {written(each)}" for (section, name), each in settings.items()]
    lines += [f"[{METRIC}]", *(f"{name} = {written(each)}" for name, each in metric.items())]
    file = tmp_path / "c.toml"
    # Both the section and what is below it were given, if so.
    file.write_text("\n".join(lines if ("domain", "metrics") not in settings else lines[: len(settings)]))
    config = checked(file=file)
    if config is None or ("domain", "metrics") in settings:
        return
    for name, each in metric.items():
        assert getattr(config.metrics["convoy_event_queue_total"], name) == each, "a setting was lost"
    for (section, name), each in settings.items():
        kept = getattr(getattr(config, section), name)
        shown = kept.reveal() if isinstance(kept, (Secret, RedisUrl)) else str(kept) if isinstance(kept, Path) else kept
        if isinstance(each, str) and isinstance(shown, str):
            assert shown == each or isinstance(kept, Path)
        elif not isinstance(each, str):
            assert shown == each


no_surrogates = any_text.map(lambda text: text.replace("\0", "").encode("utf-8", "replace").decode())


@fuzzed(
    EXAMPLES,
    environment=st.dictionaries(st.sampled_from(SETTINGS).map(lambda item: item.variable), any_text, max_size=4),
    arguments=st.dictionaries(st.sampled_from(SETTINGS).map(lambda item: item.path), any_text, max_size=3),
)
def test_variables_and_arguments_of_any_text_are_taken_or_refused(
    environment: dict[str, str], arguments: dict[str, str]
) -> None:
    secrets = {"OTEL_QUEUE_REDIS_PASSWORD": SECRET, "OTEL_QUEUE_REDIS_SENTINEL_PASSWORD": SECRET}
    checked(environment={**environment, **secrets}, arguments=arguments)


STANDARD = [name for row in STANDARD_VARIABLES for name in (row.name, row.of_signal) if name and row.fate == "honoured"]
# What is nearly right, so that more than the first check is passed.
HALF_RIGHT = st.sampled_from(
    [
        "otlp",
        "grpc",
        "http/protobuf",
        "gzip",
        "true",
        "delta",
        "1",
        "1e5",
        "http://c:1",
        "c:1",
        "a=b,c=%ff",
        "unix:/c",
        "*",
    ]
)


@fuzzed(
    EXAMPLES // 5,
    environment=st.dictionaries(st.sampled_from(STANDARD), st.one_of(HALF_RIGHT, any_text), max_size=6),
    headers=any_text,
)
def test_opentelemetrys_variables_of_any_text_are_refused_or_make_an_exporter(
    environment: dict[str, str], headers: str
) -> None:
    secrets = {"OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET},{headers}", "OTEL_METRICS_EXPORTER": "otlp"}
    config = checked(environment={**environment, **secrets})
    if config is not None:
        otlp_exporter(config.opentelemetry).shutdown()
        build_resource(config.opentelemetry, "fuzzed", 1)


@fuzzed(EXAMPLES // 5, words=st.lists(st.tuples(st.sampled_from(SETTINGS), no_surrogates), max_size=4))
def test_flags_of_any_text_are_taken_or_refused(words: list[tuple[Any, str]]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_settings(parser, SECTIONS)
    flags = [word for item, text in words if item.flag for word in (item.flag, text)]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit, argparse.ArgumentError):
        options = parser.parse_args(flags)
        with contextlib.suppress(ConfigError):
            settings_of(options)
    assert "Traceback" not in said.getvalue()


SCHEMES = ("redis", "rediss", "unix", "redis-socket", "redis-sentinel", "redis-cluster", "http", "", "REDIS")
HOSTS = ("h", "[::1]", "h:1", "h:0", "h:99999", "a,b", "a..b", "/x", "?db=1")
part = st.one_of(st.sampled_from([*HARD_TEXTS, *HOSTS]), any_text)
# What people forget to encode, around the secret so that each part of it may be taken for something else.
password = st.tuples(*[st.text("/?#@:[]%&=,+ \t", max_size=3)] * 2).map(SECRET.join)


@fuzzed(CONFIGS // 4, scheme=st.sampled_from(SCHEMES), user=part, secret=password, rest=part, query=part)
def test_a_redis_url_is_understood_or_refused_and_never_repeats_its_password(
    scheme: str, user: str, secret: str, rest: str, query: str
) -> None:
    # With a / in front it would be the path of a socket, which is shown.
    with_host = f"{scheme}://{user.lstrip('/')}:{secret}@{rest}{query}"
    for url in (with_host, with_host.replace("@", "%40", 1), f"{scheme}://{user}:{secret}"):
        try:
            shown = str(parse_redis_url(url))
        except ConfigError as error:
            # Without the last @ the secret may well be a host, or a database.
            if url == with_host:
                assert_faults(error)
            continue
        assert url != with_host or SECRET not in shown
        assert parse_redis_url(shown).nodes == parse_redis_url(url).nodes


@pytest.mark.parametrize("host", ["a..b", "a" * 70, "\udcff", "\x00", "h h", "%", "[::1%lo]"])
@pytest.mark.parametrize("scheme", ["redis", "redis-cluster"])
def test_a_host_that_no_resolver_takes_is_a_read_error(scheme: str, host: str) -> None:
    url = f"{scheme}://u:{SECRET}@{host}"
    with contextlib.suppress(ConfigError):
        link = connect(RedisConfig(url=url, connect_timeout_seconds=0.5))
        with pytest.raises(ReadError) as raised:
            list(link.exchange([request(b"k", [("PING",)])], float("inf")))
        assert SECRET not in str(raised.value)
        link.close()


FORMS = (
    "postgres://me:{}@h/d", "postgresql://me:{}@h:5432,i/d?sslmode=require", "host=h password={} dbname=d",
    "host=h password='{}'", "{}", "mysql://me:{}@h/d", "host=h passwort={}", "postgres://{}@h/d", "host={}",
)  # fmt: skip


@fuzzed(CONFIGS // 4, form=st.sampled_from(FORMS), secret=st.one_of(password, any_text), tail=any_text)
def test_a_connection_string_is_understood_or_refused_and_never_repeats_its_password(
    form: str, secret: str, tail: str
) -> None:
    try:
        dsn = Dsn(Secret(form.format(secret) + tail))
    except ConfigError as error:
        assert_faults(error)
        return
    if "password" in dsn.parameters and SECRET in dsn.parameters["password"]:
        assert SECRET not in f"{dsn} {dsn!r}"
        assert SECRET not in dsn.hide(f"says {dsn.parameters['password']}")
    assert all("\0" not in each for each in dsn.parameters.values())
