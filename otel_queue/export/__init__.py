"""From families to readers: OpenTelemetry instruments, Prometheus text, OTLP."""
