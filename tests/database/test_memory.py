from otel_queue.database import memory
from otel_queue.database.memory import Sources
from otel_queue.database.rows import EventRow
from otel_queue.lifecycle import UNTOLD


def event(number: int, source: str | None = "S1") -> EventRow:
    return EventRow(str(number), "P", source, None)


def test_the_sources_of_one_reading_are_all_remembered_however_many_they_are() -> None:
    sources = Sources()
    many = memory._SOURCES + 1
    sources.begin()
    sources.add(event(number) for number in range(many))
    sources.add(event(number) for number in range(many, 2 * many))
    assert {sources.of(("P", str(number))) for number in range(2 * many)} == {"S1"}


def test_the_sources_of_long_ago_are_forgotten() -> None:
    sources = Sources()
    for reading in range(3):
        sources.begin()
        sources.add(event(number + reading * 1_000_000) for number in range(memory._SOURCES + 1))
    assert sources.of(("P", "0")) is UNTOLD
    assert sources.of(("P", "1000000")) == "S1"


def test_a_blank_source_is_none_and_one_that_is_told_beats_it() -> None:
    sources = Sources()
    sources.add([event(1, ""), event(2, None), event(2, "S2")])
    assert (sources.of(("P", "1")), sources.of(("P", "2"))) == (None, "S2")
