"""The recorder's benchmark times nothing unless recorder, SDK and prometheus_client have counted the same."""

import json
import re
from typing import Any

import pytest

from otel_queue.recorder import Recorder
from tests.bench import recorder
from tests.bench.__main__ import main


def test_a_recorder_that_loses_an_attempt_is_broken_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class LossyRecorder(Recorder):
        def attempt_made(self, **told: Any) -> Any:
            return None if told["attempt_id"] == recorder.IDS[3] else super().attempt_made(**told)

    timed: list[object] = []

    def microseconds(*arguments: object) -> float:
        timed.append(arguments)
        return 1.0

    monkeypatch.setattr(recorder, "CALLS", 100)
    monkeypatch.setattr(recorder, "Recorder", LossyRecorder)
    monkeypatch.setattr(recorder, "_microseconds", microseconds)
    assert main(["recorder-call"]) == 1
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["value"], row["ok"]) == (None, False)
    assert re.search(r"^DisagreementError: 1 of 50 .*'endpoint-3'.*: ours 1, theirs 2", row["detail"]["error"])
    assert timed == []
