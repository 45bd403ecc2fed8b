from collections.abc import Callable

from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import meter_provider
from otel_queue.export.text import TextExposition
from otel_queue.samples import Family
from tests.unit.locks import WatchedLock, waits_for

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
NASTY = 'quote " backslash \\ newline \n \u00fc'


def exposition(*families: Family, share_seconds: float = 0.0, now: Callable[[], float] = lambda: 0.0) -> TextExposition:
    text = TextExposition(share_seconds=share_seconds, now=now)
    rows = [CATALOG[family.name] for family in families]
    meter_provider(rows, {family.name: family for family in families}.get, [text.reader], Resource({}), {})
    return text


SIZE = Family("asynq_queue_size", [((NASTY,), 3.0)], 0.0, "test")
PROCESSED = Family("asynq_tasks_processed_total", [(("q",), 12.0)], 0.0, "test")
ENQUEUED = Family("asynq_tasks_enqueued_total", [(("q", "pending"), 1.0)], 0.0, "test")


def test_the_classic_format_has_names_types_and_escaped_labels_and_no_scope() -> None:
    content_type, body = exposition(SIZE, PROCESSED, ENQUEUED).render("")
    assert content_type.startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    # The classic parser takes _total off a counter's family name, and only there.
    assert {name: family.type for name, family in families.items() if name != "target_info"} == {
        "asynq_queue_size": "gauge",
        "asynq_tasks_processed": "counter",
        "asynq_tasks_enqueued_total": "gauge",
    }
    assert families["asynq_queue_size"].samples[0].labels == {"queue": NASTY}


def test_openmetrics_is_given_to_who_prefers_it() -> None:
    content_type, body = exposition(SIZE, PROCESSED, ENQUEUED).render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    lines = body.decode().splitlines()
    assert lines[-1] == "# EOF"
    assert "# TYPE asynq_tasks_processed counter" in lines
    assert 'asynq_tasks_processed_total{queue="q"} 12.0' in lines
    assert 'asynq_tasks_enqueued_total{queue="q",state="pending"} 1.0' in lines


def test_scrapes_of_one_moment_share_the_rendered_text_per_format() -> None:
    clock = [0.0]
    samples = [(("q",), 1.0)]
    family = Family("asynq_queue_size", samples, 0.0, "test")
    text = exposition(family, share_seconds=1.0, now=lambda: clock[0])
    first = text.render("")
    samples.append((("later",), 2.0))
    assert text.render("") == first
    assert text.render(OPENMETRICS)[0] != first[0]
    clock[0] = 1.5
    assert b"later" in text.render("")[1]


def test_scrapes_that_share_for_no_time_are_each_rendered_even_in_one_moment() -> None:
    samples = [(("q",), 1.0)]
    text = exposition(Family("asynq_queue_size", samples, 0.0, "test"), share_seconds=0.0)
    text.render("")
    samples.append((("later",), 2.0))
    assert b"later" in text.render("")[1]


def test_scrapers_of_different_formats_do_not_take_each_others_text_away() -> None:
    clock = [0.0]
    samples = [(("q",), 1.0)]
    text = exposition(Family("asynq_queue_size", samples, 0.0, "test"), share_seconds=1.0, now=lambda: clock[0])
    first = {accept: text.render(accept) for accept in ("", OPENMETRICS)}
    samples.append((("later",), 2.0))
    assert {accept: text.render(accept) for accept in ("", OPENMETRICS)} == first
    clock[0] = 1.5
    text.render("")
    assert list(text._rendered) == [first[""][0]]  # what nobody may get any more is not kept


def test_counters_without_total_keep_their_names_in_both_formats() -> None:
    text = exposition(Family("convoy_ingest_success", [(("p", "http"), 2.0)], 0.0, "test"))
    classic, openmetrics = text.render("")[1].decode(), text.render(OPENMETRICS)[1].decode()
    for body, kind in ((classic, "counter"), (openmetrics, "unknown")):
        assert f"# TYPE convoy_ingest_success {kind}" in body.splitlines()
        assert 'convoy_ingest_success{project="p",source="http"} 2.0' in body.splitlines()
        assert "convoy_ingest_success_total" not in body


def test_two_scrapes_are_not_rendered_at_a_time() -> None:
    text = exposition(SIZE)
    lock = text._lock = WatchedLock()  # type: ignore[assignment]
    assert waits_for(lock, lambda: text.render(""))
