"""No secret of any setting is shown: not by repr, in a fault, in a log, by `check`, nor on a page."""

import logging
import pprint
import re
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import pytest

from otel_queue.cli import main
from otel_queue.config import Config, LedgerConfig, RedisConfig, load_config
from otel_queue.config.settings import Setting, all_settings
from otel_queue.errors import ConfigError
from otel_queue.pipeline import Pipeline
from otel_queue.server.page import status_page
from otel_queue.server.web_config import read_web_config

CANARY = "tr0ub4dor"
# Costs nothing to compare, and nobody's.
HASH = "$2y$04$" + "a" * 21 + "u" + CANARY + "b" * (31 - len(CANARY))

# What each setting that may hold a secret is given, first something that can be used. In the place of a file it is
# what the file holds.
URLS = (
    f"redis://me:{CANARY}@127.0.0.1:1/0",
    f"redis://{CANARY}@127.0.0.1:1/0",
    f"redis-sentinel://:{CANARY}@127.0.0.1:1/0?master=main",
    f"redis-cluster://:{CANARY}@127.0.0.1:1",
    f"unix://:{CANARY}@/nowhere/redis.sock",
    f"redis://me:{CANARY}/x@127.0.0.1:1/0",
    f"redis://me:x@127.0.0.1:1,b?what={CANARY}",
    f"{CANARY}@127.0.0.1:1",
)
DSNS = (
    f"postgres://me:{CANARY}@127.0.0.1:1/convoy",
    f"host=127.0.0.1 port=1 user=me password={CANARY} dbname=convoy",
    f"host=127.0.0.1 port=1 sslkey=/nowhere sslpassword={CANARY}",
    f"postgres://me:{CANARY}@x@127.0.0.1:1/convoy",
    f"host=127.0.0.1 passwort={CANARY}",
)
CARRIERS: Mapping[str, tuple[str, ...]] = {
    "redis.url": URLS,
    "redis.password": (CANARY,),
    "redis.sentinel_password": (CANARY,),
    "ledger.url": URLS,
    "follow.redis_url": URLS,
    "postgres.dsn": DSNS,
}
FILES: Mapping[str, tuple[str, ...]] = {
    "redis.password_file": (CANARY + "\n",),
    "redis.tls_key_file": (CANARY,),
    "postgres.dsn_file": DSNS,
    "server.web_config_file": (
        f"basic_auth_users: {{me: {HASH}}}",
        f"basic_auth_users: {{me: {CANARY}}}",
        f"basic_auth_users: {{{HASH}: me}}",
        f"basic_auth_users: [{CANARY}]",
        f"tls_server_config: {{key: {CANARY}}}",
    ),
}
# Texts and paths that hold no secret.
HARMLESS = frozenset(
    {
        *("redis.username", "redis.sentinel_username", "redis.tls_ca_file", "redis.tls_cert_file"),
        *("domain.source", "domain.fallback", "domain.shadow", "domain.labels", "domain.shard"),
        *("ledger.namespace", "follow.namespace", "postgres.parity", "server.listen"),
    }
)
# OpenTelemetry's own, by their forms: the last one is no header at all.
HEADERS = (
    f"authorization=Bearer%20{CANARY}",
    f'authorization="{CANARY}"',
    f"a=b,c=;{CANARY}",
    f"na me={CANARY}",
    f"authorization=Bearer%0A{CANARY}",
    CANARY,
)
HEADER_VARIABLES = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_METRICS_HEADERS")
COLLECTOR = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TIMEOUT": "0.1"}

# Nothing of it is there: what is asked for it fails, and says so.
NOWHERE = {
    "OTEL_QUEUE_REDIS_URL": "redis://127.0.0.1:1/0",
    "OTEL_QUEUE_DOMAIN_SOURCE": "ledger",
    "OTEL_QUEUE_POSTGRES_DSN": "host=127.0.0.1 port=1",
    "OTEL_QUEUE_DOMAIN_SHADOW": "postgres",
    **COLLECTOR,
}


def may_be_told(item: Setting) -> bool:
    """Whether its type is neither number nor switch."""
    return not any(kind in str(item.field.type) for kind in ("bool", "int", "float"))


def variable(path: str) -> str:
    [found] = [item.variable for item in all_settings() if item.path == path]
    return found


def environments(folder: Path) -> list[dict[str, str]]:
    """Each carrier with each of its forms, beside what makes all of them asked for."""
    found = [(variable(path), form) for path, forms in CARRIERS.items() for form in forms]
    for path, forms in FILES.items():
        for number, form in enumerate(forms):
            file = folder / f"{path}.{number}"
            file.write_text(form, encoding="utf-8")
            found.append((variable(path), str(file)))
    found += [(name, form) for name in HEADER_VARIABLES for form in HEADERS]
    made = []
    for name, form in found:
        environment = NOWHERE | {name: form}
        if name == "OTEL_QUEUE_POSTGRES_DSN_FILE":
            del environment["OTEL_QUEUE_POSTGRES_DSN"]
        made.append(environment)
    return made


def shown_by(config: Config) -> str:
    """What printing it, whole or in parts, in whatever way, gives away."""
    sections = [getattr(config, name) for name in Config.__dataclass_fields__]
    wholes = [config, config.ledger_redis, *sections]
    values = [getattr(section, name) for section in wholes for name in getattr(section, "__dataclass_fields__", ())]
    forms = (repr, str, "{}".format, pprint.pformat)
    return "\n".join(form(each) for each in (*wholes, *values) for form in forms)


def shown_by_loading(environment: Mapping[str, str]) -> str:
    """What is shown of the configuration that it makes, or of its faults."""
    try:
        config = load_config({}, environment)
        file = config.server.web_config_file
        return shown_by(config) + (repr(read_web_config(file)) if file else "")
    except ConfigError as error:
        return "".join(traceback.format_exception(error))


def test_each_setting_that_is_a_text_or_a_file_is_said_to_hold_a_secret_or_none() -> None:
    """A new setting belongs into CARRIERS, FILES or HARMLESS above."""
    told = {item.path for item in all_settings() if may_be_told(item)}
    assert told == {*CARRIERS, *FILES, *HARMLESS}
    assert len(told) == len(CARRIERS) + len(FILES) + len(HARMLESS)


def test_a_setting_that_holds_a_secret_is_of_a_type_that_does_not_show_it() -> None:
    hidden = {item.path for item in all_settings() if re.search(r"Secret|RedisUrl", str(item.field.type))}
    assert hidden == set(CARRIERS)


def test_no_form_of_a_configuration_or_its_faults_shows_a_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usable = 0
    with caplog.at_level(logging.DEBUG):
        for environment in environments(tmp_path):
            shown = shown_by_loading(environment)
            assert CANARY not in shown, environment
            usable += "Config(redis=" in shown
    assert usable >= len(CARRIERS) + len(FILES)
    assert CANARY not in caplog.text


@pytest.mark.parametrize("redis", [RedisConfig, LedgerConfig], ids=["redis", "ledger"])
def test_a_configuration_that_is_made_by_hand_hides_its_url_too(redis: type) -> None:
    made = redis(url=URLS[0])
    assert CANARY not in f"{made}{made!r}{asdict(made)}"
    with pytest.raises(ConfigError) as caught:
        redis(url=URLS[-1])
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_no_toml_does_not_show_what_is_in_it(tmp_path: Path) -> None:
    for line in (f"password = {CANARY}", f'url = "redis://:{CANARY}@h', f'password = ["{CANARY}"]', f"url = '{CANARY}"):
        file = tmp_path / "otel-queue.toml"
        file.write_text(f"[redis]\n{line}\n", encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load_config({}, {}, file)
        assert CANARY not in "".join(traceback.format_exception(caught.value)), line


def test_check_says_what_is_wrong_without_a_secret(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0
    for environment in environments(tmp_path):
        with monkeypatch.context() as patched, caplog.at_level(logging.DEBUG):
            for name, value in environment.items():
                patched.setenv(name, value)
            assert main(["--verbose", "check"]) > 0
        said = capsys.readouterr()
        assert CANARY not in said.out + said.err + caplog.text, environment
        asked += "otlp" in said.out and "postgres" in said.out
    assert asked >= len(CARRIERS)


def test_neither_the_page_nor_the_metrics_nor_the_log_of_an_exporter_shows_a_secret(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = NOWHERE | {variable(path): forms[0] for path, forms in CARRIERS.items()}
    environment |= dict.fromkeys(HEADER_VARIABLES, HEADERS[0])
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with caplog.at_level(logging.DEBUG):
        exporter = Pipeline(load_config({}, environment))
        exporter.start()
        text = exporter.scrape("", None).body.decode()
        ready = exporter.ready()
        exporter.shutdown()
        status = exporter.status()
    assert {lane.name for lane in status.lanes if lane.last_error} >= {"queue", "ledger", "postgres", "otlp"}
    page = status_page(status, time.time()).decode()
    assert CANARY not in f"{text}{page}{ready}{status!r}{caplog.text}"
    assert not ready.ok
