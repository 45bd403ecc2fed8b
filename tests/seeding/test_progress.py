"""What a long run says of how far it is."""

import logging
import sys

import pytest

from otel_queue.seeding.progress import Progress


def test_off_a_terminal_there_is_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = [0.0]
    with Progress(1_000, now=lambda: clock[0]) as progress:
        for _ in range(25):
            clock[0] += 1.0
            progress.advance(20, "deliveries")
    assert [record.message for record in caplog.records] == [
        "deliveries: 200 rows of about 1000 read, 20 a second",
        "deliveries: 400 rows of about 1000 read, 20 a second",
    ]


def test_on_a_terminal_there_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress(100) as progress:
        progress.advance(100, "events")
    assert "events: 100%" in capsys.readouterr().err
    assert not caplog.records
