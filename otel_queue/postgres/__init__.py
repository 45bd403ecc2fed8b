"""The gateway's PostgreSQL as a source of the domain lane: read by one exporter at a time, served by all."""
