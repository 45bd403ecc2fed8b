"""What an exporter says of itself, as its text shows it."""

import platform
import time
from collections.abc import Mapping

from otel_queue.catalog import EVENTS
from otel_queue.export.self_metrics import self_families, series_families, shard_families
from otel_queue.export.series import SeriesText
from otel_queue.samples import Family
from otel_queue.shard import Shard
from otel_queue.status import LaneState
from otel_queue.version import __version__
from tests.export.ways_out import Labels, labels, parsed

ATTEMPTS = "convoy_event_delivery_attempts_total"
NEW = LaneState("queue", None, None, None, None, {}, None)
WELL = LaneState("otlp", True, 0.25, 1_700_000_000.0, 4.0, {}, None)
ILL = LaneState("ledger", False, 0.0, None, None, {"timeout": 2, "connection": 1}, "ConnectionError: no")
DOMAIN = {
    EVENTS: Family(EVENTS, [(("p", "s", "success"), 3.0), (("p", "t", "failure"), 1.0)], 0.0, "ledger"),
    ATTEMPTS: Family(ATTEMPTS, [(("p", "e", "success", "200"), 3.0)], 0.0, "ledger"),
}


def shown(families: Mapping[str, Family]) -> dict[str, dict[Labels, float]]:
    assert all(name == family.name for name, family in families.items())
    return parsed(SeriesText({}).render(families.values(), openmetrics=False).decode())


def test_a_lane_has_samples_of_what_it_knows_and_none_of_the_rest() -> None:
    assert shown(self_families([NEW, WELL, ILL])) == {
        "otel_queue_up": {labels(lane="otlp"): 1.0, labels(lane="ledger"): 0.0},
        "otel_queue_collect_duration_seconds": {labels(lane="otlp"): 0.25, labels(lane="ledger"): 0.0},
        "otel_queue_snapshot_age_seconds": {labels(lane="otlp"): 4.0},
        "otel_queue_last_success_timestamp_seconds": {labels(lane="otlp"): 1_700_000_000.0},
        "otel_queue_errors_total": {
            labels(lane="ledger", reason="timeout"): 2.0,
            labels(lane="ledger", reason="connection"): 1.0,
        },
        "otel_queue_build_info": {labels(version=__version__, python_version=platform.python_version()): 1.0},
    }


def test_the_lanes_may_be_told_one_after_the_other() -> None:
    assert shown(self_families(iter([NEW, WELL, ILL]))) == shown(self_families([NEW, WELL, ILL]))


def test_a_metric_says_how_many_series_it_has_and_how_many_its_own_source_folded() -> None:
    folded = {"ledger": {EVENTS: 7}, "postgres": {EVENTS: 100, ATTEMPTS: 200}}
    sources = {EVENTS: "ledger", ATTEMPTS: "ledger"}
    assert shown(series_families(DOMAIN, sources, folded)) == {
        "otel_queue_series": {labels(metric=EVENTS): 2.0, labels(metric=ATTEMPTS): 1.0},
        "otel_queue_folded_series": {labels(metric=EVENTS): 7.0, labels(metric=ATTEMPTS): 0.0},
    }


def test_a_source_that_folds_nothing_folded_nothing() -> None:
    folded = shown(series_families(DOMAIN, dict.fromkeys(DOMAIN, "ledger"), {}))["otel_queue_folded_series"]
    assert set(folded.values()) == {0.0}


def test_a_shard_says_which_it_is_of_how_many_and_counts_each_of_its_projects_once() -> None:
    assert shown(shard_families(DOMAIN, Shard(2, 5))) == {
        "otel_queue_shards": {labels(): 5.0},
        "otel_queue_shard_projects": {labels(shard="2"): 1.0},
    }


def test_the_projects_of_a_shard_are_unknown_while_no_event_is_known() -> None:
    assert shown(shard_families({}, Shard(2, 5))) == {"otel_queue_shards": {labels(): 5.0}}


def test_what_an_exporter_says_of_itself_is_its_own_and_of_this_moment() -> None:
    before = time.time()
    families = [
        *self_families([WELL]).values(),
        *series_families(DOMAIN, dict.fromkeys(DOMAIN, "ledger"), {}).values(),
        *shard_families(DOMAIN, Shard(2, 5)).values(),
    ]
    assert {family.source for family in families} == {"self"}
    assert all(before <= family.time <= time.time() for family in families)
