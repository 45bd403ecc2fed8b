import pytest

from otel_queue.config import Sources
from otel_queue.samples import Family
from otel_queue.selection import Selection, Supply

GAUGE = "convoy_event_queue_total"
COUNTER = "convoy_event_delivery_attempts_total"


def supply(value: float, *metrics: str, well: bool = True) -> Supply:
    labels = ("p", "http", "success")
    return Supply({name: Family(name, [(labels, value)], 0.0, "test") for name in metrics or (GAUGE, COUNTER)}, well)


GONE = Supply({}, well=False)
LEDGER, DATABASE = supply(1.0), supply(2.0)


class Scene:
    """A selection with a fallback and a clock; `look` says from which source the gauge comes."""

    def __init__(self, fallback: str | None = "postgres", shadow: str | None = None) -> None:
        self.time = 0.0
        self.selection = Selection(
            {GAUGE: Sources("ledger", fallback, shadow), COUNTER: Sources("ledger", None, shadow)},
            fallback_after_seconds=60.0,
            return_after_seconds=120.0,
            now=lambda: self.time,
        )

    def look(
        self, time: float, ledger: Supply = LEDGER, postgres: Supply = DATABASE, metric: str = GAUGE
    ) -> str | None:
        self.time = time
        chosen = self.selection.choose({"ledger": ledger, "postgres": postgres})
        assert chosen.families.keys() == chosen.sources.keys()
        source = chosen.sources.get(metric)
        if source is not None:
            value = {"ledger": 1.0, "postgres": 2.0}[source]
            assert chosen.families[metric].samples[0][1] == value
        return source


def test_a_source_that_is_well_is_exported_and_its_fallback_is_not_read() -> None:
    scene = Scene()
    assert scene.look(0) == "ledger"
    assert scene.selection.wanted() == {"ledger"}


def test_a_source_that_fails_keeps_its_last_values_until_the_fallback_is_taken() -> None:
    scene = Scene()
    scene.look(0)
    failing = supply(1.0, well=False)
    assert scene.look(10, failing) == "ledger"
    assert scene.look(69, failing) == "ledger"
    assert scene.look(70, failing) == "postgres"


def test_a_fallback_is_read_from_half_of_the_patience_on() -> None:
    scene = Scene()
    scene.look(0, GONE, GONE)
    scene.time = 29
    assert scene.selection.wanted() == {"ledger"}
    scene.time = 30
    assert scene.selection.wanted() == {"ledger", "postgres"}


def test_a_short_fault_changes_nothing_and_starts_the_patience_anew() -> None:
    scene = Scene()
    for begin in (0, 100, 200):
        assert scene.look(begin, GONE) is None
        assert scene.look(begin + 59, GONE) is None
        assert scene.look(begin + 60) == "ledger"


def test_the_source_is_taken_back_when_it_has_been_well_for_long_enough_without_a_break() -> None:
    scene = Scene()
    scene.look(0, GONE)
    assert scene.look(60, GONE) == "postgres"
    assert scene.look(100) == "postgres"
    assert scene.look(150, GONE) == "postgres"  # not well for 120 s yet: it flaps
    assert scene.look(160) == "postgres"
    assert scene.look(279) == "postgres"
    assert scene.selection.wanted() == {"ledger", "postgres"}
    assert scene.look(280) == "ledger"
    assert scene.selection.wanted() == {"ledger"}


def test_a_fallback_that_fails_gives_way_at_once_to_a_source_that_is_well() -> None:
    scene = Scene()
    scene.look(0, GONE)
    assert scene.look(60, GONE) == "postgres"
    assert scene.look(61, LEDGER, GONE) == "ledger"


def test_when_both_fail_nothing_is_exported_and_no_source_is_active() -> None:
    scene = Scene()
    assert scene.look(0, GONE, GONE) is None
    assert scene.look(1000, GONE, GONE) is None
    chosen = scene.selection.choose({"ledger": GONE, "postgres": GONE})
    assert {value for _, value in scene.selection.active(chosen).samples} == {0.0}


def test_a_fallback_that_lacks_the_metric_does_not_help() -> None:
    scene = Scene()
    partial = supply(2.0, COUNTER)
    assert scene.look(0, GONE, partial) is None
    assert scene.look(1000, GONE, partial) is None


def test_a_source_that_lacks_a_part_counts_as_failing_and_is_exported_until_then() -> None:
    scene = Scene()
    partial = supply(1.0, well=False)
    assert scene.look(0, partial, GONE) == "ledger"
    assert scene.look(1000, partial, GONE) == "ledger"  # the fallback has nothing: a part is better
    assert scene.look(1001, partial) == "postgres"


def test_a_counter_is_absent_rather_than_taken_from_elsewhere() -> None:
    scene = Scene()
    assert scene.look(0, GONE, metric=COUNTER) is None
    assert scene.look(1000, GONE, metric=COUNTER) is None


def test_metrics_choose_each_for_itself() -> None:
    scene = Scene()
    only_counter = supply(1.0, COUNTER)
    scene.look(0, only_counter)
    assert scene.look(60, only_counter) == "postgres"
    assert scene.look(60, only_counter, metric=COUNTER) == "ledger"


def test_a_shadow_is_always_read_and_never_exported() -> None:
    scene = Scene(fallback=None, shadow="postgres")
    assert scene.selection.wanted() == {"ledger", "postgres"}
    assert scene.look(0, GONE) is None
    assert scene.look(1000, GONE) is None


def test_the_active_source_is_1_and_the_other_0() -> None:
    scene = Scene()
    for time, ledger, expected in ((0.0, LEDGER, "ledger"), (10.0, GONE, None), (100.0, GONE, "postgres")):
        scene.time = time
        chosen = scene.selection.choose({"ledger": ledger, "postgres": DATABASE})
        active = dict(scene.selection.active(chosen).samples)
        assert active[GAUGE, "ledger", "source"] == (expected == "ledger")
        assert active[GAUGE, "postgres", "fallback"] == (expected == "postgres")
        assert [key for key in active if key[0] == COUNTER] == [(COUNTER, "ledger", "source")]


@pytest.mark.parametrize("supplies", [{}, {"ledger": GONE}])
def test_a_source_without_a_lane_has_nothing(supplies: dict[str, Supply]) -> None:
    assert not Scene().selection.choose(supplies).families


def test_a_metric_without_a_source_is_not_exported() -> None:
    selection = Selection({GAUGE: Sources(None, None, None)}, fallback_after_seconds=1.0, return_after_seconds=1.0)
    chosen = selection.choose({"ledger": LEDGER})
    assert not chosen.families
    assert not selection.active(chosen).samples
    assert not selection.wanted()
