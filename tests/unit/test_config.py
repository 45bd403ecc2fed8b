from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_queue.config import Config, Secret, load_config, parse_listen
from otel_queue.config.checks import MOST_SECONDS
from otel_queue.config.settings import SECTIONS, all_settings
from otel_queue.errors import ConfigError


def load(file: Path | None = None, arguments: Mapping[str, str] | None = None, **environment: str) -> Config:
    return load_config(arguments, environment, file)


def faults(file: Path | None = None, arguments: Mapping[str, str] | None = None, **environment: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(file, arguments, **environment)
    return "\n".join(caught.value.faults)


def write(folder: Path, text: str) -> Path:
    file = folder / "otel-queue.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_anything_the_defaults_hold_and_listen_on_loopback() -> None:
    config = load()
    assert config == Config()
    assert config.server.listen.startswith("127.0.0.1:")


def test_an_argument_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "[queue]\ntimeout_seconds = 1.5\ngroups_cap = 5\nworkers = false\n")
    config = load(
        file, {"queue.timeout_seconds": "9"}, OTEL_QUEUE_QUEUE_TIMEOUT_SECONDS="8", OTEL_QUEUE_QUEUE_GROUPS_CAP="7"
    )
    assert (config.queue.timeout_seconds, config.queue.groups_cap, config.queue.workers) == (9.0, 7, False)


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    file = write(tmp_path, '[server]\nlisten = "127.0.0.1:1"\n')
    assert load(OTEL_QUEUE_CONFIG=str(file)).server.listen == "127.0.0.1:1"


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[redis]\nurl = "http://x"\nusrname = "u"\n[queu]\n[queue]\ntimeout_seconds = 0\nworkers = "maybe"\n'
        'task_types_sample = 1.5\n[attributes]\nasynq_queue_size = ["project"]\nasynq_que_size = []\n',
    )
    said = faults(
        file,
        OTEL_QUEUE_LISTEN="nowhere",
        OTEL_METRIC_EXPORT_INTERVAL="soon",
        OTEL_EXPORTER_OTLP_TIMEOUT="0",
        OTEL_EXPORTER_OTLP_PROTOCOL="http/json",
    )
    for part in (
        "unknown setting redis.usrname; did you mean username?",
        "unknown section [queu]; did you mean queue?",
        "queue.timeout_seconds (from file): must be at least 0.01, not 0",
        "queue.workers (from file): must be true or false, not 'maybe'",
        "queue.task_types_sample (from file): must be a whole number, not 1.5",
        "attributes.asynq_queue_size: project not among its keys (queue)",
        "attributes.asynq_que_size: no such metric; did you mean asynq_queue_size?",
        "redis.url: unknown form 'http'",
        "server.listen: 'nowhere' is not host:port",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_EXPORTER_OTLP_TIMEOUT: must be seconds, from 0.001 to 2000000, not '0'",
        "OTEL_EXPORTER_OTLP_PROTOCOL: must be http/protobuf or grpc, not 'http/json'",
    ):
        assert part in said


def test_every_setting_in_seconds_has_a_most_that_timers_can_count() -> None:
    times = [item.path for item in all_settings() if "float" in str(item.field.type)]
    said = faults(arguments=dict.fromkeys(times, "1e10")).splitlines()
    assert [fault.partition(" ")[0] for fault in said] == times
    assert all(fault.endswith(f"must be at most {MOST_SECONDS}, not 1e10") for fault in said)
    assert load(arguments={"queue.timeout_seconds": str(MOST_SECONDS)}).queue.timeout_seconds == MOST_SECONDS
    for number, limit in (("inf", f"at most {MOST_SECONDS}"), ("nan", "at least 0.01"), ("-inf", "at least 0.01")):
        assert f"must be {limit}, not {number}" in faults(arguments={"queue.timeout_seconds": number})


def test_series_that_would_disappear_before_they_are_read_again_are_a_fault() -> None:
    rare = {"queue.min_interval_seconds": "60"}
    assert "must be less than queue.max_staleness_seconds, which is 30, not 60" in faults(arguments=rare)
    patient = rare | {"queue.max_staleness_seconds": "61"}
    assert load(arguments=patient).queue.min_interval_seconds == 60.0
    said = faults(arguments=patient, OTEL_QUEUE_DOMAIN_SOURCE="ledger")
    assert "must be less than ledger.max_staleness_seconds, which is 60, not 60" in said
    assert load(arguments=patient, OTEL_QUEUE_DOMAIN_SOURCE="ledger", OTEL_QUEUE_LEDGER_MAX_STALENESS_SECONDS="61")


def test_a_file_that_is_not_there_or_not_toml_is_a_fault(tmp_path: Path) -> None:
    assert "cannot be read" in faults(tmp_path / "none.toml")
    assert "not TOML" in faults(write(tmp_path, "listen = = 1"))


def test_a_password_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", encoding="utf-8")
    config = load(arguments={"redis.password_file": str(secret)})
    assert config.redis.password == Secret("hunter2")
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(load(OTEL_QUEUE_REDIS_URL="redis://u:hunter2@h"))


def test_a_connection_string_comes_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "dsn"
    secret.write_text(DSN + "\n", encoding="utf-8")
    config = load(arguments={"postgres.dsn_file": str(secret)})
    assert config.postgres.dsn == Secret(DSN)
    assert "hunter2" not in repr(config)
    assert "set one of them" in faults(arguments={"postgres.dsn_file": str(secret)}, OTEL_QUEUE_POSTGRES_DSN=DSN)


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    said = faults(OTEL_QUEUE_REDIS_PASSWORD="a", OTEL_QUEUE_REDIS_PASSWORD_FILE=str(tmp_path))
    assert "set one of them" in said


def test_secrets_have_no_flag_since_a_command_line_is_public() -> None:
    assert [item.path for item in all_settings() if item.flag is None] == [
        "redis.password",
        "redis.sentinel_password",
        "postgres.dsn",
    ]


def test_variables_that_kubernetes_makes_for_a_service_called_otel_queue_are_no_settings() -> None:
    variables = {item.variable for item in all_settings()}
    assert not variables & {"OTEL_QUEUE_PORT", "OTEL_QUEUE_SERVICE_HOST", "OTEL_QUEUE_SERVICE_PORT"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [(":80", ("127.0.0.1", 80)), ("[::1]:9464", ("::1", 9464)), ("0.0.0.0:1", ("0.0.0.0", 1))],
)
def test_listen_addresses(text: str, expected: tuple[str, int]) -> None:
    assert parse_listen(text) == expected


COUNTER = "convoy_event_delivery_attempts_total"
GAUGE = "convoy_event_queue_total"
DSN = "postgres://u:hunter2@h/d"


def test_a_domain_metric_has_the_sources_of_its_section_or_of_the_domain(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        '[domain]\nsource = "ledger"\nfallback = "postgres"\nshadow = "postgres"\n'
        f'[domain.metrics.{GAUGE}]\nsource = "postgres"\nshadow = "none"\nabsolute = 3\n',
    )
    config = load(file, OTEL_QUEUE_POSTGRES_DSN=DSN)
    assert config.sources_of("convoy_event_queue_backlog_seconds") == ("ledger", "postgres", "postgres")
    assert config.sources_of(GAUGE) == ("postgres", None, None)
    assert config.metrics[GAUGE].absolute == 3.0
    assert config.reads("ledger")
    assert config.reads("postgres")


def test_a_counter_has_no_fallback_whatever_the_domain_says() -> None:
    config = load(OTEL_QUEUE_DOMAIN_SOURCE="ledger", OTEL_QUEUE_DOMAIN_FALLBACK="postgres", OTEL_QUEUE_POSTGRES_DSN=DSN)
    assert config.sources_of(COUNTER) == ("ledger", None, None)
    assert config.sources_of(GAUGE) == ("ledger", "postgres", None)


def test_without_a_source_neither_ledger_nor_database_is_read() -> None:
    config = load(OTEL_QUEUE_POSTGRES_DSN=DSN)
    assert config.sources_of(GAUGE) == (None, None, None)
    assert not config.reads("ledger")
    assert not config.reads("postgres")


def test_the_faults_of_the_domain_are_told_together(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        f'[domain]\nsource = "ledger"\nshadow = "ledger"\n[domain.metrics.{COUNTER}]\nfallback = "postgres"\n'
        "[domain.metrics.convoy_event_que_total]\n"
        f'[domain.metrics.{GAUGE}]\nsource = "mysql"\nabsolute = -1\nrelative = "x"\nage_second = 1\n',
    )
    said = faults(file)
    for part in (
        "domain.shadow: is the source itself, ledger",
        f"domain.metrics.{COUNTER}.fallback: a counter has none",
        "domain.metrics.convoy_event_que_total: no such domain metric; did you mean convoy_event_queue_total?",
        f"domain.metrics.{GAUGE}.source: must be one of ledger, postgres, none, not 'mysql'",
        f"domain.metrics.{GAUGE}.absolute: must be at least 0, not -1",
        f"domain.metrics.{GAUGE}.relative: must be a number, not 'x'",
        f"domain.metrics.{GAUGE}: unknown setting age_second; did you mean age_seconds?",
    ):
        assert part in said


def test_a_fallback_or_a_shadow_without_a_source_is_a_fault() -> None:
    assert "domain.fallback: is ledger, and there is no domain.source" in faults(OTEL_QUEUE_DOMAIN_FALLBACK="ledger")


def test_postgres_needs_to_be_told_where_it_is() -> None:
    assert "postgres.dsn: is needed" in faults(OTEL_QUEUE_DOMAIN_SOURCE="postgres")
    assert load(OTEL_QUEUE_DOMAIN_SOURCE="postgres", OTEL_QUEUE_POSTGRES_DSN=DSN).reads("postgres")


def test_the_example_has_every_section_and_is_valid() -> None:
    example = Path(__file__).parents[2] / "examples" / "otel-queue.toml"
    config = load(example)
    assert config.sources_of(GAUGE) == (None, None, None)
    lines = example.read_text(encoding="utf-8").splitlines()
    sections = {line.strip("[]") for line in lines if line.startswith("[")}
    assert {*SECTIONS, "attributes"} <= sections


def test_the_follower_has_a_ledger_of_its_own_in_the_ledgers_redis() -> None:
    config = load(OTEL_QUEUE_LEDGER_URL="redis://user:secret@ledger/1", OTEL_QUEUE_LEDGER_RETENTION_DAYS="30").followed
    assert (config.ledger.namespace, config.ledger_redis.location.nodes) == ("oq-db", (("ledger", 6379),))
    assert config.ledger.retention_days == 0


def test_the_followers_ledger_can_have_a_redis_of_its_own_with_its_own_credentials() -> None:
    config = load(OTEL_QUEUE_REDIS_PASSWORD="queues", OTEL_QUEUE_FOLLOW_REDIS_URL="redis://rows/3")
    assert config.followed.ledger_redis.location.nodes == (("rows", 6379),)
    assert config.followed.ledger_redis.password is None
    assert config.ledger_redis == config.redis


def test_a_follower_that_would_write_the_workers_ledger_or_has_no_database_is_refused() -> None:
    said = faults(OTEL_QUEUE_FOLLOW_ENABLED="true", OTEL_QUEUE_FOLLOW_NAMESPACE="oq")
    assert "follow.namespace: 'oq' is ledger.namespace" in said
    assert "postgres.dsn: is needed, since [follow] is enabled" in said
