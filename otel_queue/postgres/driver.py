"""psycopg, which is an optional dependency: without it this room cannot be entered, and says what to install."""

from otel_queue.errors import ConfigError

try:
    import psycopg
except ImportError as error:  # psycopg itself raises it where there is no libpq
    raise ConfigError([f"postgres.dsn needs psycopg: in a checkout, pip install '.[postgres]' ({error})"]) from error

__all__ = ["psycopg"]
