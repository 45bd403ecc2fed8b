import gzip
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from otel_queue.server.exporter import Readiness
from otel_queue.server.page import CONTENT_SECURITY_POLICY
from tests.server.client import eventually, fetch, talk
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, OPEN_METRICS, TEXT, FakeExporter


def test_the_accept_header_reaches_the_exporter_and_its_format_comes_back(serve: Serve, exporter: FakeExporter) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5"
    port = serve().port

    reply = fetch(port, headers={"Accept": accept})

    assert exporter.asked == [(accept, None)]
    assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, OPEN_METRICS, BODY)


def test_several_accept_lines_reach_the_exporter_as_one_list(serve: Serve, exporter: FakeExporter) -> None:
    port = serve().port

    talk(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: a/b\r\nAccept: c/d\r\nConnection: close\r\n\r\n")

    assert exporter.asked == [("a/b, c/d", None)]


def test_without_an_accept_header_the_exporter_is_asked_for_its_default(serve: Serve, exporter: FakeExporter) -> None:
    reply = fetch(serve().port)

    assert exporter.asked == [("", None)]
    assert reply.headers["Content-Type"] == TEXT


def test_a_plain_answer_says_its_length_and_is_not_to_be_stored(serve: Serve) -> None:
    reply = fetch(serve().port)

    assert reply.headers["Content-Length"] == str(len(BODY))
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert "Content-Encoding" not in reply.headers
    assert "Server" not in reply.headers


def test_a_client_that_takes_gzip_gets_gzip(serve: Serve) -> None:
    reply = fetch(serve().port, headers={"Accept-Encoding": "gzip"})

    assert reply.headers["Content-Encoding"] == "gzip"
    assert reply.headers["Content-Length"] == str(len(reply.body))
    assert len(reply.body) < len(BODY)
    assert gzip.decompress(reply.body) == BODY


def test_a_client_that_refuses_gzip_gets_the_text_as_it_is(serve: Serve) -> None:
    reply = fetch(serve().port, headers={"Accept-Encoding": "gzip;q=0, *;q=1"})

    assert "Content-Encoding" not in reply.headers
    assert reply.body == BODY


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/", "/nothing"])
def test_head_answers_with_the_headers_of_get_and_no_body(serve: Serve, path: str, encoding: str) -> None:
    port = serve(clock=lambda: 2000.0).port

    got, head = (fetch(port, path, method=method, headers={"Accept-Encoding": encoding}) for method in ("GET", "HEAD"))

    assert head.body == b""
    assert head.status == got.status
    without_date = [{k: v for k, v in reply.headers.items() if k.lower() != "date"} for reply in (got, head)]
    assert without_date[0] == without_date[1]


@pytest.mark.parametrize(("timeout", "expected"), [("10", 9.5), ("2.25", 1.75), ("0.4", 0.2)])
def test_the_scrape_timeout_reaches_the_exporter_with_a_margin_for_the_answer(
    serve: Serve, exporter: FakeExporter, timeout: str, expected: float
) -> None:
    fetch(serve().port, headers={"X-Prometheus-Scrape-Timeout-Seconds": timeout})

    budget = exporter.asked[0][1]
    assert budget is not None
    assert 0 < budget <= expected


@pytest.mark.parametrize("timeout", ["", "soon", "nan", "inf", "-1", "0", "1e3", "1_0", "10, 10"])
def test_a_scrape_timeout_that_makes_no_sense_is_no_timeout(serve: Serve, exporter: FakeExporter, timeout: str) -> None:
    reply = fetch(serve().port, headers={"X-Prometheus-Scrape-Timeout-Seconds": timeout})

    assert reply.status == 200
    assert exporter.asked == [("", None)]


def test_a_failing_exporter_gives_a_short_500_and_its_cause_in_the_log_only(
    serve: Serve, exporter: FakeExporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter.error = RuntimeError("redis://user:secret@redis/0 broke")

    with caplog.at_level(logging.ERROR, logger="otel_queue"):
        replies = [fetch(serve().port, path) for path in ("/metrics", "/readyz", "/")]

    for reply in replies:
        assert reply.status == 500
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert reply.body == b"the exporter failed; its log says why\n"
    assert caplog.text.count("RuntimeError: redis://user:secret@redis/0 broke") == 3


def test_an_exporter_that_failed_once_serves_the_next_scrape(serve: Serve, exporter: FakeExporter) -> None:
    port = serve().port
    exporter.error = RuntimeError("once")
    assert fetch(port).status == 500
    exporter.error = None

    assert fetch(port).body == BODY


def test_readiness_is_what_the_exporter_found(serve: Serve, exporter: FakeExporter) -> None:
    port = serve().port

    ready = fetch(port, "/readyz")
    exporter.readiness = Readiness(False, "redis refused the connection")
    unready = fetch(port, "/readyz")

    assert (ready.status, ready.body) == (200, b"redis answered\n")
    assert (unready.status, unready.body) == (503, b"redis refused the connection\n")


def test_two_hundred_clients_at_once_are_all_answered_and_few_are_worked_on(
    serve: Serve, exporter: FakeExporter
) -> None:
    port = serve(scrapes_at_once=8).port
    exporter.gate.clear()

    with ThreadPoolExecutor(200) as clients:
        replies = [clients.submit(fetch, port) for _ in range(200)]
        eventually(lambda: len(exporter.asked) == 8)
        exporter.gate.set()
        answers = [reply.result(timeout=60) for reply in replies]

    assert [(reply.status, reply.body) for reply in answers] == [(200, BODY)] * 200
    assert exporter.most_at_once == 8


def test_scrapes_past_the_bound_are_turned_away_and_the_waiting_ones_served(
    serve: Serve, exporter: FakeExporter
) -> None:
    port = serve(scrapes_at_once=1, scrapes_waiting=2).port
    exporter.gate.clear()

    with ThreadPoolExecutor(6) as clients:
        replies = [clients.submit(fetch, port) for _ in range(6)]
        eventually(lambda: sum(reply.done() for reply in replies) == 3)
        turned_away = [reply.result() for reply in replies if reply.done()]
        exporter.gate.set()
        statuses = sorted(reply.result(timeout=60).status for reply in replies)

    assert [(reply.status, reply.headers["Retry-After"]) for reply in turned_away] == [(503, "5")] * 3
    assert statuses == [200, 200, 200, 503, 503, 503]


def test_scrapes_that_hang_do_not_hold_up_health_readiness_or_the_landing_page(
    serve: Serve, exporter: FakeExporter
) -> None:
    port = serve(scrapes_at_once=1).port
    exporter.gate.clear()
    hanging = threading.Thread(target=fetch, args=(port,))
    hanging.start()
    eventually(lambda: exporter.at_once == 1)

    assert fetch(port, "/healthz").body == b"ok\n"
    assert fetch(port, "/").status == 200

    exporter.gate.set()
    hanging.join(30)


def test_a_scrape_whose_time_ran_out_before_its_turn_is_not_worked_on(serve: Serve, exporter: FakeExporter) -> None:
    a_microsecond = {"X-Prometheus-Scrape-Timeout-Seconds": "0.000001"}

    reply = fetch(serve().port, headers=a_microsecond)

    assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
    assert exporter.asked == []


def test_a_client_that_hung_up_while_it_waited_costs_no_scrape(serve: Serve, exporter: FakeExporter) -> None:
    listener = serve(scrapes_at_once=1)
    in_work = listener._server.server_state.tasks
    exporter.gate.clear()

    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(fetch, listener.port)
        eventually(lambda: exporter.at_once == 1)
        with socket.create_connection(("127.0.0.1", listener.port)) as impatient:
            impatient.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            eventually(lambda: len(in_work) == 2)
        eventually(lambda: len(in_work) == 1)
        exporter.gate.set()
        assert first.result(timeout=30).status == 200

    assert fetch(listener.port).status == 200
    assert len(exporter.asked) == 2
