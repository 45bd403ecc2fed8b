"""Connection strings: what is shown of them, and that a string with a mistake in it is never repeated."""

import traceback

import pytest

from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError
from otel_queue.postgres.dsn import Dsn

PASSWORD = "tr0ub4dor"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgres://me:{PASSWORD}@db.example:6432/convoy", "postgres://db.example:6432/convoy"),
        (f"postgresql://me:{PASSWORD}@db.example/convoy?sslmode=require", "postgres://db.example:5432/convoy"),
        (f"host=a,b port=5432,5433 dbname=convoy user=me password={PASSWORD}", "postgres://a,b:5432,5433/convoy"),
        (f"postgres://me:{PASSWORD}@/convoy?host=/run/postgresql", "postgres:///run/postgresql:5432/convoy"),
        ("dbname=convoy", "postgres://local:5432/convoy"),
    ],
)
def test_a_connection_string_shows_host_port_and_database_alone(text: str, shown: str) -> None:
    dsn = Dsn(Secret(text))
    assert str(dsn) == shown
    assert repr(dsn) == f"Dsn({shown})"
    assert f"{dsn!s} {dsn!r} {dsn}".count(PASSWORD) == 0


@pytest.mark.parametrize(
    "text",
    [
        f"postgres://me:a@{PASSWORD}@db/convoy",
        f"postgres://me:a/{PASSWORD}@db/convoy",
        f"postgres://me:%{PASSWORD}@db/convoy",
        f"host=db password=a {PASSWORD} dbname=convoy",
        f"host=db passwort={PASSWORD}",
        f"mysql://me:{PASSWORD}@db/convoy",
        f"postgres://me:x@db:{PASSWORD}/convoy",
        PASSWORD,
        "",
    ],
)
def test_a_string_that_cannot_be_used_is_refused_without_repeating_any_of_it(text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Dsn(Secret(text))
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert PASSWORD not in shown
    assert "postgres.dsn" in shown
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_secrets_are_taken_out_of_other_words() -> None:
    dsn = Dsn(Secret(f"host=db password={PASSWORD} sslpassword=key{PASSWORD}"))
    assert PASSWORD not in dsn.hide(f"the server says {PASSWORD}, and of the key key{PASSWORD}")
