import gzip

import pytest

from otel_queue.server.encoding import accepts_gzip, compress


@pytest.mark.parametrize(
    "accept_encoding",
    [
        "gzip",
        "GZIP",
        "x-gzip",
        "gzip, deflate, br",
        "br;q=1.0, gzip;q=0.8, *;q=0.1",
        "*",
        "gzip ; q=0.001",
        "deflate;q=0,*",
    ],
)
def test_gzip_is_used_where_the_client_takes_it(accept_encoding: str) -> None:
    assert accepts_gzip(accept_encoding)


@pytest.mark.parametrize(
    "accept_encoding",
    ["", "identity", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "br", "gzipped", "identity, gzip;q=0.5"],
)
def test_gzip_is_not_used_where_the_client_refuses_it_or_prefers_none(accept_encoding: str) -> None:
    assert not accepts_gzip(accept_encoding)


@pytest.mark.parametrize("weight", ["2", "-1", "nan", "", "0.1234", "half"])
def test_a_weight_that_cannot_be_read_is_a_refusal(weight: str) -> None:
    assert not accepts_gzip(f"gzip;q={weight}")


def test_the_same_body_compresses_to_the_same_bytes_and_back() -> None:
    body = b"asynq_queue_size 1\n" * 1000

    assert compress(body) == compress(body)
    assert gzip.decompress(compress(body)) == body
