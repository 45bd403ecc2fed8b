"""The Resource: who exports. What the user set by the standard variables stands; the rest is stable."""

import socket
from importlib.metadata import entry_points
from typing import Final

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    TELEMETRY_SDK_LANGUAGE,
    TELEMETRY_SDK_NAME,
    TELEMETRY_SDK_VERSION,
    Resource,
    ResourceDetector,
    get_aggregated_resources,
)
from opentelemetry.sdk.version import __version__ as sdk_version

from otel_queue.config import OpenTelemetryConfig
from otel_queue.version import __version__

# They read the environment, and make a random instance id.
_OWN: Final = frozenset({"otel", "service_instance"})


def build_resource(settings: OpenTelemetryConfig, service_name: str, port: int) -> Resource:
    """The process's Resource.

    What the user set wins, then what detectors find. Without them `service.instance.id` is host:port: the SDK would
    make a random one at every start, and every restart would begin new series.
    """
    defaults = {
        SERVICE_NAME: service_name,
        SERVICE_INSTANCE_ID: f"{socket.gethostname()}:{port}",
        SERVICE_VERSION: __version__,
        TELEMETRY_SDK_LANGUAGE: "python",
        TELEMETRY_SDK_NAME: "opentelemetry",
        TELEMETRY_SDK_VERSION: sdk_version,
    }
    found = get_aggregated_resources(_detectors(settings.resource_detectors), Resource(defaults))
    return found.merge(Resource(dict(settings.resource)))


def _detectors(named: tuple[str, ...]) -> list[ResourceDetector]:
    if not named:
        return []
    installed = entry_points(group="opentelemetry_resource_detector")
    wanted = (installed.names if "*" in named else set(named)) - _OWN
    return [each.load()() for each in installed if each.name in wanted]
