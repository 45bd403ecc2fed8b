"""The recorder's benchmark times nothing unless recorder, SDK and prometheus_client have counted the same."""

import json
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
            if told["attempt_id"] != recorder.IDS[3]:
                return super().attempt_made(**told)

    timed: list[object] = []
    monkeypatch.setattr(recorder, "CALLS", 100)
    monkeypatch.setattr(recorder, "Recorder", LossyRecorder)
    monkeypatch.setattr(recorder, "_microseconds", lambda *arguments: timed.append(arguments) or 1.0)
    assert main(["recorder-call"]) == 1
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["value"], row["ok"]) == (None, False)
    assert "'endpoint-3'" in row["detail"]["error"]
    assert "ours 1.0, theirs 2" in row["detail"]["error"].replace("ours 1,", "ours 1.0,")
    assert timed == []
