"""Who exports, as a collector is told."""

import os
import socket

import pytest
from opentelemetry.sdk.version import __version__ as sdk_version

from otel_queue.config import OpenTelemetryConfig
from otel_queue.export.resource import build_resource
from otel_queue.version import __version__

OWN = {
    "service.name": "named",
    "service.instance.id": f"{socket.gethostname()}:9464",
    "service.version": __version__,
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": sdk_version,
}


def resource(*detectors: str, **chosen: str) -> dict[str, object]:
    told = {name.replace("_", "."): value for name, value in chosen.items()}
    settings = OpenTelemetryConfig(resource=told, resource_detectors=detectors)
    return dict(build_resource(settings, "named", 9464).attributes)


def test_the_resource_is_the_service_where_it_listens_its_version_and_the_sdks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=process")
    assert resource() == OWN


def test_a_detector_that_is_named_adds_its_attributes_and_no_other_does() -> None:
    found = resource("process")
    assert found["process.pid"] == os.getpid()
    assert "os.type" not in found
    assert found | OWN == found


def test_all_detectors_add_theirs_and_leave_the_instance_that_outlives_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=process")
    found = resource("*")
    assert {"process.pid", "os.type"} <= set(found)
    assert "a" not in found
    assert found["service.instance.id"] == OWN["service.instance.id"]


def test_what_the_user_sets_wins_over_a_detector_and_over_what_is_ours() -> None:
    found = resource("process", process_pid="chosen", service_name="chosen")
    assert (found["process.pid"], found["service.name"]) == ("chosen", "chosen")
