import pytest

from otel_queue.config.redis_url import RedisUrl, parse_redis_url
from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError

FORMS = {
    "redis://": RedisUrl("standalone", False, (("127.0.0.1", 6379),)),
    "redis://cache:7000/3": RedisUrl("standalone", False, (("cache", 7000),), database=3),
    "rediss://u:p%40ss@cache": RedisUrl("standalone", True, (("cache", 6379),), username="u", password=Secret("p@ss")),
    "redis://:p@[::1]:6380/1": RedisUrl("standalone", False, (("::1", 6380),), database=1, password=Secret("p")),
    "unix:///run/redis.sock?db=2": RedisUrl("unix", False, path="/run/redis.sock", database=2),
    "redis-socket:///run/redis.sock": RedisUrl("unix", False, path="/run/redis.sock"),
    "redis-sentinel://:pw@a:26379,b/4?master=main": RedisUrl(
        "sentinel", False, (("a", 26379), ("b", 26379)), database=4, master="main", password=Secret("pw")
    ),
    "rediss-cluster://a:1,b:2": RedisUrl("cluster", True, (("a", 1), ("b", 2))),
}


@pytest.mark.parametrize("url", FORMS)
def test_each_form_of_url_is_understood(url: str) -> None:
    assert parse_redis_url(url) == FORMS[url]


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("localhost:6379", "unknown form"),
        ("http://x", "unknown form 'http'"),
        ("redis://a/x", "the database must be a number, not 'x'"),
        ("redis://a,b", "several hosts need"),
        ("redis://a:port", "number 1 of its hosts is not host:port"),
        ("redis-sentinel://a", "needs ?master=NAME"),
        ("redis-cluster://a/1", "only database 0"),
        ("unix://", "needs a path"),
        ("redis://a?timeout=3", "unknown parameters timeout"),
    ],
)
def test_a_url_that_cannot_be_used_says_why(url: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=r"redis\.url") as caught:
        parse_redis_url(url)
    assert fault in str(caught.value)


@pytest.mark.parametrize("url", FORMS)
def test_what_is_shown_of_a_url_leads_to_the_same_place_without_the_password(url: str) -> None:
    shown = str(parse_redis_url(url))
    assert "@" not in shown
    again, original = parse_redis_url(shown), parse_redis_url(url)
    assert (again.nodes, again.path, again.database, again.master) == (
        original.nodes, original.path, original.database, original.master,
    )  # fmt: skip


def test_a_fault_never_repeats_the_password() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_redis_url("redis://user:hunter2@a,b/x?what=1")
    assert "hunter2" not in str(caught.value)
