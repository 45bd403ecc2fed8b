"""psycopg is optional: without it the rest works, and the Postgres source says what to install."""

import subprocess
import sys

_WITHOUT = """
import sys
sys.modules["psycopg"] = None
import otel_queue.pipeline
import otel_queue.postgres
from otel_queue.errors import ConfigError
try:
    import otel_queue.postgres.source
except ConfigError as error:
    print(error)
"""


def test_without_psycopg_the_source_says_what_to_install_and_nothing_else_needs_it() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pip install '.[postgres]'" in done.stdout
