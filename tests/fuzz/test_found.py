"""What fuzzing has found, one by one: an input that broke something, and what becomes of it now."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from otel_queue import labels
from otel_queue.asynq.payload import PayloadError, read_payload
from otel_queue.config import RedisConfig, Secret, load_config
from otel_queue.config.redis_url import parse_redis_url
from otel_queue.errors import ConfigError, ReadError
from otel_queue.export.text import TextExposition
from otel_queue.ledger.contract import parse_contract
from otel_queue.ledger.identity import identify
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.states import delivery_state, event_state
from otel_queue.ledger.tracked import Place, Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import StatusSet
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.generation import decode, encode
from otel_queue.postgres.store import GenerationStore
from otel_queue.redis_client import connect, request
from otel_queue.server.web_config import read_web_config
from otel_queue.shadow import journal
from tests.fuzz.test_ledger_reads import spoiled_link
from tests.ledger.ledgers import Ledger, day_of, now_us
from tests.postgres.exporters import example
from tests.recorder.reading import ListWriter, Recording
from tests.servers.redis import RedisServer
from tests.shadow.sides import DELIVERIES
from tests.shadow.test_journal import entry

METRIC = "[domain.metrics.convoy_event_queue_total]\n"
LONG = "9" * 5_000
HASH_OF_NOBODY = "shLql9zlq/2uYm1OW1xO1uUustK/i1FCnPAV99ZE1A7H4RZg9yUc7"


@pytest.mark.parametrize(
    "toml",
    [
        "a = " + "[" * 5_000, f"a = {LONG}", '[redis]\npassword_file = "a\\u0000b"', f"[redis]\ntls_ca_file = '{LONG}'",
        f"{METRIC}source = 0x{'f' * 5_000}", f"{METRIC}source = false", f'{METRIC}fallback = ""',
        f'[redis]\nurl = "redis://h/{LONG}"', '[redis]\nurl = "redis://h:0"',
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_file_that_broke_the_reader_or_was_ignored_is_refused(tmp_path: Path, toml: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(toml)
    with pytest.raises(ConfigError):
        load_config({}, {}, file)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:pa/hunter2@h:6379/0", "redis://u:pa?hunter2=1@h", "redis://u:hunter2", "unix://u:pa/hunter2@/run/r.sock",
        "unix://u:a@/hunter2@/run/r.sock", "redis:/u:hunter2@://h",
    ],
)  # fmt: skip
def test_a_password_that_is_not_encoded_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_redis_url(url)
    assert "hunter2" not in str(refused.value)


def test_the_name_of_a_socket_may_have_an_at_sign() -> None:
    assert parse_redis_url("unix:///run/redis@6379.sock").path == "/run/redis@6379.sock"


@pytest.mark.parametrize("text", ["host=a\0b password=x", "postgres://u:x\udcff@h/d", "host=h port=٣"])
def test_a_connection_string_that_libpq_would_cut_or_python_cannot_encode_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Dsn(Secret(text))


def test_a_host_that_is_no_name_is_a_read_error() -> None:
    link = connect(RedisConfig(url="redis://a..b"))
    with pytest.raises(ReadError) as refused:
        list(link.exchange([request(b"k", [("PING",)])], float("inf")))
    assert refused.value.reason == "connection"


@pytest.mark.parametrize(
    "yaml",
    [
        "a: !!int ''", "a: !!bool x", "a: !!timestamp x", f"0x{'f' * 5_000}: 1",
        f"tls_server_config: {{min_version: 0x{'f' * 5_000}}}",
        'basic_auth_users: {"\\ud800": $2b$04$abcdefghijklmnopqrstuuZ4TRzq5cHQZEWtMIfKUlbnKCvTLfFfW}',
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_a_web_config_that_broke_its_reader_is_refused(tmp_path: Path, yaml: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(yaml)
    with pytest.raises(ConfigError):
        read_web_config(file)


@pytest.mark.parametrize("asked", ["text/plain;version=abc", "application/openmetrics-text;version=1.0.0-x"])
def test_a_version_that_is_no_number_gets_the_plain_format(asked: str) -> None:
    assert TextExposition(share_seconds=0.0).render(asked)[0] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("version", ["1.0.7", "2.0.0", "1.0.0; escaping=dots", "1.0.0; escaping=values"])
def test_a_version_or_escaping_that_is_not_spoken_gets_one_that_is(version: str) -> None:
    content_type, _ = TextExposition(share_seconds=0.0).render(f"application/openmetrics-text; version={version}")
    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores"


def test_a_response_status_of_thousands_of_digits_is_none() -> None:
    assert labels.http_status_code(1 << 16_000) == labels.http_status_code(-200) == "none"


def test_a_field_of_a_payload_that_is_no_text_is_refused() -> None:
    with pytest.raises(PayloadError, match="int where text was expected"):
        read_payload(b'{"ProjectID": 7}')


@pytest.mark.parametrize(
    ("field", "value"),
    [("project", "\ud800"), ("delivery_id", "\udfff"), pytest.param("time_us", 1 << 16_000, id="long")],
)
def test_what_cannot_be_sent_to_the_ledger_is_a_miss_with_its_reason(field: str, value: Any) -> None:
    recording = Recording(writer=ListWriter())
    told: dict[str, Any] = {"project": "p", "delivery_id": "d", "status": "success", field: value}
    assert recording.recorder.status_set(**told) == "missed"
    [reason] = recording.misses()
    assert reason == {"project": "bad_project", "delivery_id": "bad_id", "time_us": "bad_time"}[field]


def generation_with(old: bytes, new: bytes) -> bytes:
    head = encode(example())[:5]
    text = zlib.decompress(encode(example())[5:])
    assert old in text
    return head + zlib.compress(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"s0"', b'"\\ud800"'), (b'"s0"', b'"\xed\xa0\x80"'), (b"[0.0,", b"[1e400,"), (b"[0.0,", b'["nan",'),
        (b"[0.0,", b"[" + b"9" * 400 + b","), (b'"timeout":2', b'"timeout":1e400'), (b"[0.0,", b"[true,"),
        (b'"convoy_event_queue_total"', b'"asynq_group_tasks"'),
    ],
)  # fmt: skip
def test_a_generation_that_nothing_could_export_is_broken(old: bytes, new: bytes) -> None:
    with pytest.raises(ReadError) as broken:
        decode(generation_with(old, new))
    assert broken.value.reason == "broken_generation"


@pytest.mark.parametrize(("name", "value"), [("rule", "\ud800"), ("drift", 10**400), ("comparisons", 10**400)])
def test_an_entry_of_the_journal_that_nothing_could_export_is_broken(name: str, value: Any) -> None:
    kept = json.dumps({**json.loads(journal.encode(entry())), name: value}).encode()
    with pytest.raises(ReadError) as broken:
        journal.decode(DELIVERIES, kept)
    assert broken.value.reason == "broken_journal"


def test_a_lease_whose_times_are_none_is_given_out_again(redis_server: RedisServer) -> None:
    link = connect(RedisConfig(url=redis_server.url))
    store = GenerationStore(link, "corrected")
    with redis_server.client() as client:
        client.hset(store.key, mapping={"fence": "x", "lease_until": "x", "failed_at": "", "time": "x", "token": ""})
        assert store.look().lease is not None
    link.close()


@pytest.mark.parametrize("field", ["x:2", "1:x", "-1:2", "99999999999:2", "1", "", "1:0", "1:7", "1:e"])
def test_a_count_of_no_group_costs_its_project_and_no_other(
    redis_server: RedisServer, ledger: Ledger, field: str
) -> None:
    ledger.write(*(StatusSet(project, "d", "processing", now_us(), "E", "t", "S") for project in ("p", "whole")))
    with redis_server.client() as client:
        # An undated id counts under the day of its first sight, which is listed.
        [day] = ledger.upkeep.days("p")
        client.hset(f"oq:{{p}}:counts:{day}", field, 1)
    link = connect(RedisConfig(url=ledger.url))
    snapshot = LedgerReader(link).snapshot()
    assert [project.project for project in snapshot.projects] == ["whole"]
    assert sum(snapshot.failures.values()) == 1
    link.close()


def test_a_state_or_day_that_is_none_is_a_read_error(redis_server: RedisServer, ledger: Ledger) -> None:
    for parse in (delivery_state, event_state):
        with pytest.raises(ReadError):
            parse("undated", b"d", b"x")
    ledger.write(StatusSet("p", "d", "processing", now_us(), "E", "t", "S"))
    with redis_server.client() as client:
        client.zadd("oq:{p}:days", {b"\xff": 1})
        client.hset(f"oq:{{p}}:counts:{day_of(now_us())}", "1:2", 1)
    link = connect(RedisConfig(url=ledger.url))
    with pytest.raises(ReadError):
        Upkeep(link).check("p")
    link.close()


@pytest.mark.parametrize("text", [b"2;%s;5;00000000:1:1:1;" % LONG.encode(), b"2;1<1;5;00000000:1:1:1;", b"x;1;5;"])
def test_a_damaged_contract_cannot_be_read_and_is_of_no_other_protocol(text: bytes) -> None:
    with pytest.raises(ReadError, match="contract cannot be read") as refused:
        parse_contract(text)
    assert refused.value.reason == "contract"


@pytest.mark.parametrize("spoiled", [[0, None, None], [0]])
def test_more_or_fewer_states_than_were_asked_for_are_a_read_error(ledger: Ledger, spoiled: list[Any]) -> None:
    place = Place("delivery", "p", day_of(now_us()))
    with spoiled_link(ledger, lambda reply: spoiled if reply == [0, None] else reply) as link:
        with pytest.raises(ReadError) as refused:
            Tracked(link).find({place: [identify("d")]})
        assert (refused.value.reason, link.changed) == ("bad_value", 1)


def test_a_hash_that_would_keep_the_server_busy_for_hours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    for cost, is_taken in (("16", True), ("17", False), ("31", False)):
        file.write_text(f"basic_auth_users: {{alice: '$2b${cost}${HASH_OF_NOBODY}'}}")
        if is_taken:
            assert list(read_web_config(file).basic_auth_users) == ["alice"]
        else:
            with pytest.raises(ConfigError, match=f"the hash of alice has cost {cost}"):
                read_web_config(file)
