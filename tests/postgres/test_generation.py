"""The encoding: what went in comes out, and anything else is said to be broken."""

import json
import random
import zlib
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_queue.catalog import CATALOG
from otel_queue.errors import ReadError
from otel_queue.postgres.generation import Generation, decode, encode
from otel_queue.samples import Family
from tests.fuzz.mutation import mutate
from tests.postgres.exporters import example
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
TIMES = st.floats(0, 4e9)


def families(name: str) -> st.SearchStrategy[Family]:
    labels = st.tuples(*[TEXTS] * len(CATALOG[name].keys))
    values = st.one_of(st.integers(0, 1 << 53).map(float), st.floats(-1e9, 1e9))
    samples = st.dictionaries(labels, values, max_size=5).map(lambda found: list(found.items()))
    return st.builds(Family, st.just(name), samples, TIMES, st.just("postgres"))


GENERATIONS = st.builds(
    Generation,
    TIMES,
    st.tuples(*map(families, (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS))),
    st.dictionaries(TEXTS, st.integers(0, 100), max_size=3),
)


@given(GENERATIONS)
def test_a_generation_survives_its_encoding(generation: Generation) -> None:
    assert decode(encode(generation)) == generation


def test_an_encoding_is_much_smaller_than_what_it_holds() -> None:
    labels = [
        ("P1", "Project", f"endpoint{i:05}", "success", "user.created", "http", "O1", "Org") for i in range(10_000)
    ]
    generation = Generation(1e9, (Family(DELIVERIES, [(each, 1.0) for each in labels], 1e9, "postgres"),))
    assert len(encode(generation)) < sum(len("".join(each)) for each in labels) / 5


def packed(document: Any) -> bytes:
    return b"oqg1\n" + zlib.compress(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"oqg1\n",
        b"oqg2\n" + encode(example())[5:],
        encode(example())[:-1],
        encode(example())[:40],
        b"oqg1\n" + zlib.compress(b"no JSON"),
        packed([]),
        packed({"time": 1, "families": []}),
        packed({"time": 1, "failures": {}, "families": [["unheard_of", 1, [], []]]}),
        packed({"time": 1, "failures": {}, "families": [[EVENTS, 1, ["P"], ["S"], [1]]]}),
        packed({"time": 1, "failures": {}, "families": [[EVENTS, 1, ["P"], ["S"], ["success"], [1, 2]]]}),
        packed({"time": 1, "failures": {}, "families": [[EVENTS, 1, ["P"], [7], ["success"], [1]]]}),
        packed({"time": 1, "failures": {}, "families": [[EVENTS, 1, ["P"], ["S"], ["success"], [float("nan")]]]}),
        packed({"time": None, "failures": {}, "families": []}),
        packed(json.loads("[" * 900 + "]" * 900)),
    ],
)
def test_anything_else_is_broken(data: bytes) -> None:
    with pytest.raises(ReadError) as raised:
        decode(data)
    assert raised.value.reason == "broken_generation"


def test_damaged_bytes_are_broken_and_never_other_numbers() -> None:
    chance, good = random.Random(4), example()
    data = encode(good)
    outcomes = Counter(_outcome(mutate(data, chance)) for _ in range(2000))
    assert outcomes.keys() <= {"broken_generation", repr(good)}
    assert outcomes["broken_generation"] > 1000


def _outcome(data: bytes) -> str:
    try:
        return repr(decode(data))
    except ReadError as error:
        return error.reason
