"""The HTTP side of `otel-queue serve`: /metrics, health, a landing page, TLS and basic auth."""
