"""The Resource: who exports. What the user set by the standard variables stands; the rest is stable."""

import socket

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)

from otel_queue.version import __version__


def build_resource(service_name: str, port: int) -> Resource:
    """The process's Resource.

    OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win. Without them `service.instance.id` is host:port: the SDK
    would make a random one at every start, and every restart would begin new series.
    """
    chosen = OTELResourceDetector().detect().attributes
    defaults = {
        SERVICE_NAME: service_name,
        SERVICE_INSTANCE_ID: f"{socket.gethostname()}:{port}",
        SERVICE_VERSION: __version__,
    }
    # Explicit attributes come last: the SDK's own detector would put its random instance id over the user's.
    return Resource.create({**defaults, **chosen})
