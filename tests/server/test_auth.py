import base64
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import bcrypt
import pytest

from otel_queue.server.auth import BasicAuth, is_bcrypt_hash
from tests.server.client import fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter

PASSWORD = "correct horse: battery"
HASHED = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
ALL_PATHS = ["/metrics", "/healthz", "/readyz", "/", "/nothing"]


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def auth() -> BasicAuth:
    return BasicAuth({"prometheus": HASHED})


@pytest.mark.parametrize("path", ALL_PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_without_credentials_every_path_is_closed(
    serve: Serve, exporter: FakeExporter, auth: BasicAuth, path: str, method: str
) -> None:
    reply = fetch(serve(auth=auth).port, path, method=method)

    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == 'Basic realm="otel-queue", charset="UTF-8"'
    assert b"asynq" not in reply.body
    assert exporter.asked == []


@pytest.mark.parametrize(
    "header",
    [
        basic("prometheus", "wrong"),
        basic("prometheus", ""),
        basic("nobody", PASSWORD),
        basic("", PASSWORD),
        basic("Prometheus", PASSWORD),
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"prometheus").decode(),
        "Basic \u00e9",
        "Bearer " + basic("prometheus", PASSWORD).removeprefix("Basic "),
        basic("prometheus", PASSWORD) + ", " + basic("nobody", "x"),
    ],
)
def test_wrong_credentials_are_refused_without_a_byte_of_metrics(
    serve: Serve, exporter: FakeExporter, auth: BasicAuth, header: str
) -> None:
    reply = fetch(serve(auth=auth).port, headers={"Authorization": header})

    assert (reply.status, reply.body) == (401, b"credentials are missing or wrong\n")
    assert exporter.asked == []


@pytest.mark.parametrize("path", ALL_PATHS)
def test_right_credentials_open_every_path(serve: Serve, auth: BasicAuth, path: str) -> None:
    port = serve(auth=auth).port

    open_reply = fetch(port, path, headers={"Authorization": basic("prometheus", PASSWORD)})

    assert open_reply.status == (404 if path == "/nothing" else 200)
    if path == "/metrics":
        assert open_reply.body == BODY


def test_the_scheme_is_read_in_any_case(auth: BasicAuth) -> None:
    assert auth.allows(basic("prometheus", PASSWORD).replace("Basic", "bAsIc"))


def test_an_unknown_user_costs_the_same_comparison_as_a_known_one() -> None:
    dear = bcrypt.hashpw(b"x", bcrypt.gensalt(6)).decode()
    auth = BasicAuth({"cheap": HASHED, "dear": dear})

    with patch("otel_queue.server.auth.bcrypt.checkpw", wraps=bcrypt.checkpw) as compare:
        assert not auth.allows(basic("nobody", "x"))

    (_, compared_with), _ = compare.call_args
    assert compare.call_count == 1
    assert compared_with.startswith(b"$2b$06$")


def test_right_credentials_are_compared_once_and_wrong_ones_every_time(auth: BasicAuth) -> None:
    right, wrong = basic("prometheus", PASSWORD), basic("prometheus", "wrong")

    with patch("otel_queue.server.auth.bcrypt.checkpw", wraps=bcrypt.checkpw) as compare:
        assert [auth.remembers(right), auth.allows(right), auth.remembers(right), auth.allows(right)] == [
            False,
            True,
            True,
            True,
        ]
        assert compare.call_count == 1
        assert [auth.allows(wrong), auth.allows(wrong), auth.remembers(wrong)] == [False, False, False]

    assert compare.call_count == 3


def test_remembering_one_user_opens_nothing_for_another() -> None:
    auth = BasicAuth({"a": bcrypt.hashpw(b"bc", bcrypt.gensalt(4)).decode(), "ab": HASHED})
    assert auth.allows(basic("a", "bc"))

    assert not auth.remembers(basic("ab", "bc"))
    assert not auth.remembers(basic("ab", "c"))
    assert not auth.remembers(basic("a", "bcx"))


def test_an_unknown_user_is_refused_even_where_the_comparison_succeeds(auth: BasicAuth) -> None:
    with patch("otel_queue.server.auth.bcrypt.checkpw", return_value=True):
        assert not auth.allows(basic("nobody", PASSWORD))
        assert not auth.remembers(basic("nobody", PASSWORD))


def test_what_is_remembered_is_bounded_and_holds_no_password() -> None:
    users = {f"user{number}": HASHED for number in range(70)}
    auth = BasicAuth(users)

    assert all(auth.allows(basic(user, PASSWORD)) for user in users)

    assert sum(auth.remembers(basic(user, PASSWORD)) for user in users) == 64
    assert auth.remembers(basic("user69", PASSWORD))
    assert not auth.remembers(basic("user0", PASSWORD))
    assert PASSWORD not in repr(vars(auth))
    assert HASHED not in repr(auth)


def test_whoever_comes_again_and_again_is_not_forgotten_for_others_who_came_once() -> None:
    others = [f"user{number}" for number in range(100)]
    auth = BasicAuth(dict.fromkeys(["prometheus", *others], HASHED))

    assert auth.allows(basic("prometheus", PASSWORD))
    for other in others:
        assert auth.allows(basic(other, PASSWORD))
        assert auth.remembers(basic("prometheus", PASSWORD))

    assert not auth.remembers(basic("user0", PASSWORD))


def test_a_long_password_is_cut_where_bcrypt_cuts_it() -> None:
    hashed = bcrypt.hashpw(b"p" * 72, bcrypt.gensalt(4)).decode()

    auth = BasicAuth({"long": hashed})

    assert auth.allows(basic("long", "p" * 100))
    assert not auth.allows(basic("long", "p" * 71))


def test_hashes_of_other_tools_are_understood() -> None:
    by_prefix = {prefix: HASHED.replace("$2b$", prefix) for prefix in ("$2a$", "$2b$", "$2y$")}

    assert all(BasicAuth({"u": hashed}).allows(basic("u", PASSWORD)) for hashed in by_prefix.values())
    assert all(is_bcrypt_hash(hashed) for hashed in by_prefix.values())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        HASHED[:-1],
        HASHED + "x",
        HASHED.replace("$04$", "$03$"),
        HASHED.replace("$04$", "$32$"),
        HASHED.replace("$04$", "$4$"),
        HASHED.replace("$2b$", "$2x$"),
        HASHED.replace("$2b$", "$5$"),
        HASHED[:-1] + "!",
        "$2b$04$" + "\u00e9" * 53,
        "$2b$\u0660\u0664$" + HASHED[7:],
    ],
    ids=range(12),  # hashes are salted: names made of them would differ from run to run
)
def test_what_bcrypt_cannot_compare_with_is_no_hash(text: str) -> None:
    assert not is_bcrypt_hash(text)


def test_many_first_requests_at_once_are_all_let_in(serve: Serve, auth: BasicAuth) -> None:
    port = serve(auth=auth).port
    headers = {"Authorization": basic("prometheus", PASSWORD)}

    with ThreadPoolExecutor(50) as clients:
        replies = list(clients.map(lambda _: fetch(port, headers=headers), range(50)))

    assert {reply.status for reply in replies} == {200}
