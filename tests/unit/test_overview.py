from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import pytest

from otel_queue.catalog import CATALOG
from otel_queue.overview import CHARTED_QUEUES, MOST_QUEUES, TOP, Overview, Seen
from otel_queue.samples import Family, LabelValues
from otel_queue.status import EndpointOverview, MetricSource, ProjectOverview, ShadowVerdict
from tests.unit.clock import Clock

DELIVERIES = "convoy_event_delivery_queue_total"
BACKLOG = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS = "convoy_event_delivery_attempts_total"
ACTIVE = "otel_queue_source_active"

Samples = Mapping[str, Sequence[tuple[LabelValues, float]]]


def families(samples: Samples) -> dict[str, Family]:
    return {name: Family(name, found, 100.0, "test", 1.0) for name, found in samples.items()}


def queues(pending: dict[str, float], more: Samples = MappingProxyType({})) -> dict[str, Family]:
    found: Samples = {
        "asynq_queue_size": [((queue,), value + 100) for queue, value in pending.items()],
        "asynq_tasks_enqueued_total": [((queue, "pending"), value) for queue, value in pending.items()],
    }
    return families({**found, **more})


def domain(samples: Samples) -> dict[str, Family]:
    return families({ACTIVE: [((DELIVERIES, "ledger", "source"), 1.0)], **samples})


def delivery(project: str, status: str, endpoint: str = "e") -> tuple[str, ...]:
    return (project, f"name of {project}", endpoint, status, "type", "source", "o", "organisation")


def seen_of(found: dict[str, Family]) -> Seen:
    overview = Overview(now=lambda: 1000.0)
    overview.note(found)
    return overview.seen()


def test_before_the_first_collection_nothing_is_seen_and_nothing_has_an_age() -> None:
    overview = Overview()

    assert overview.age_seconds() is None
    assert overview.seen() == ((), (), 0, None, ())


def test_the_age_is_that_of_the_last_collection() -> None:
    clock = Clock(1000.0)
    overview = Overview(now=clock)
    overview.note({})
    clock.now += 12.0

    assert overview.age_seconds() == 12.0


def test_a_queue_has_what_is_known_of_it_and_the_rest_is_none() -> None:
    [queue] = seen_of(
        queues(
            {"q": 3.0},
            {
                "asynq_queue_latency_seconds": [(("q",), 1.5)],
                "asynq_queue_paused_total": [(("q",), 1.0)],
                "asynq_tasks_lease_expired": [(("q",), 2.0)],
                "asynq_queue_servers": [(("q",), 0.0)],
            },
        )
    ).queues

    assert (queue.queue, queue.size, queue.pending, queue.latency_seconds) == ("q", 103.0, 3.0, 1.5)
    assert (queue.paused, queue.lease_expired, queue.servers) == (True, 2.0, 0.0)
    assert (queue.active, queue.archived, queue.processed_per_second) == (None, None, None)
    assert [point.pending for point in queue.history] == [3.0]


def test_a_queue_that_only_a_server_names_does_not_exist_yet() -> None:
    seen = seen_of(queues({"q": 0.0}, {"asynq_queue_servers": [(("q",), 1.0), (("later",), 1.0)]}))

    assert [queue.queue for queue in seen.queues] == ["q"]


def test_the_queues_with_most_to_do_or_with_trouble_have_charts_and_stand_by_name() -> None:
    pending = {f"q{number:03}": float(number) for number in range(CHARTED_QUEUES + 5)}

    seen = seen_of(queues(pending, {"asynq_queue_paused_total": [(("q000",), 1.0)]}))

    names = [queue.queue for queue in seen.queues]
    assert names == ["q000", *(f"q{number:03}" for number in range(6, CHARTED_QUEUES + 5))]
    assert [queue.queue for queue in seen.other_queues] == [f"q{number:03}" for number in range(1, 6)]
    assert all(queue.history for queue in seen.queues)
    assert not any(queue.history for queue in seen.other_queues)
    assert seen.queue_count == CHARTED_QUEUES + 5


def test_the_number_of_queues_shown_is_bounded_and_all_are_counted() -> None:
    seen = seen_of(queues({str(number): 1.0 for number in range(MOST_QUEUES + 7)}))

    assert len(seen.queues) + len(seen.other_queues) == MOST_QUEUES
    assert seen.queue_count == MOST_QUEUES + 7


def test_when_no_queue_can_be_read_the_known_ones_stay_with_their_past_alone() -> None:
    overview = Overview(now=lambda: 1000.0)
    overview.note(queues({"q": 3.0}))
    overview.note({})

    [queue] = overview.seen().queues

    assert (queue.queue, queue.size, queue.pending, queue.processed_per_second) == ("q", None, None, None)
    assert [point.pending for point in queue.history] == [3.0]


def test_without_a_domain_metric_there_is_no_domain() -> None:
    assert seen_of(queues({"q": 1.0})).domain is None


def test_projects_are_counted_by_what_is_unfinished_over_all_their_series() -> None:
    seen = seen_of(
        domain(
            {
                DELIVERIES: [
                    (delivery("idle", "success"), 1000.0),
                    (delivery("busy", "processing"), 3.0),
                    (delivery("busy", "retry", "e2"), 4.0),
                    (delivery("busy", "scheduled"), 5.0),
                    (delivery("busy", "failure"), 6.0),
                    (delivery("busy", "discarded"), 7.0),
                ],
                BACKLOG: [(("busy", "e", "s"), 9.0), (("busy", "e2", "s"), 70.0), (("busy", "e", "t"), 3.0)],
            }
        )
    )

    assert seen.domain is not None
    assert seen.domain.projects == (
        ProjectOverview("busy", "name of busy", 25.0, 12.0, 6.0, 70.0),
        ProjectOverview("idle", "name of idle", 1000.0, 0.0, 0.0, None),
    )


def test_a_projects_name_comes_from_its_info_where_labels_are_lean() -> None:
    seen = seen_of(
        domain(
            {
                DELIVERIES: [(("p", "", "e", "success", "", "s", "", ""), 1.0)],
                "convoy_project_info": [(("p", "Payments", "o", "O"), 1.0)],
            }
        )
    )

    assert seen.domain is not None
    assert [project.name for project in seen.domain.projects or ()] == ["Payments"]


def test_the_oldest_endpoints_stand_first_and_those_without_a_backlog_not_at_all() -> None:
    ages = {f"e{number:02}": float(number) for number in range(TOP + 5)}
    seen = seen_of(domain({BACKLOG: [(("p", endpoint, "s"), age) for endpoint, age in ages.items()]}))

    assert seen.domain is not None
    assert seen.domain.oldest is not None
    assert seen.domain.oldest[0] == EndpointOverview("p", f"e{TOP + 4}", backlog_seconds=TOP + 4.0)
    assert len(seen.domain.oldest) == TOP
    assert seen.domain.waiting_count == TOP + 4


def test_endpoints_that_fail_now_stand_before_those_that_failed_more_long_ago() -> None:
    clock = Clock(1000.0)
    overview = Overview(now=clock)

    def attempts(recent: float) -> dict[str, Family]:
        return domain(
            {
                ATTEMPTS: [
                    (("p", "past", "failure", "500"), 900.0),
                    (("p", "now", "failure", "500"), 10.0 + recent),
                    (("p", "now", "failure", "none"), 5.0),
                    (("p", "now", "success", "200"), 85.0),
                    (("p", "fine", "success", "200"), 85.0),
                ]
            }
        )

    overview.note(attempts(0.0))
    clock.now += 60.0
    overview.note(attempts(20.0))
    found = overview.seen().domain

    assert found is not None
    assert found.failing == (
        EndpointOverview("p", "now", attempts=120.0, failed=35.0, failed_lately=20.0),
        EndpointOverview("p", "past", attempts=900.0, failed=900.0, failed_lately=0.0),
    )
    assert (found.failing_count, found.lately_seconds) == (2, 60.0)


def test_a_list_whose_metric_is_absent_is_none_and_not_empty() -> None:
    found = seen_of(domain({})).domain

    assert found is not None
    assert (found.projects, found.oldest, found.failing) == (None, None, None)


@pytest.mark.parametrize(("own", "other", "active"), [(1.0, 0.0, "ledger"), (0.0, 1.0, "postgres"), (0.0, 0.0, None)])
def test_the_source_that_a_metric_comes_from_now_is_named(own: float, other: float, active: str | None) -> None:
    found = seen_of(
        families({ACTIVE: [((BACKLOG, "ledger", "source"), own), ((BACKLOG, "postgres", "fallback"), other)]})
    ).domain

    assert found is not None
    assert found.sources == (MetricSource(BACKLOG, "ledger", "postgres", active),)


def test_verdicts_join_what_the_shadow_says_of_each_metric() -> None:
    seen = seen_of(
        families(
            {
                "otel_queue_shadow_within_tolerance": [((DELIVERIES,), 0.0)],
                "otel_queue_shadow_drift": [((DELIVERIES,), 3.5)],
                "otel_queue_shadow_missing_series": [((DELIVERIES, "primary"), 1.0), ((DELIVERIES, "shadow"), 0.0)],
                "otel_queue_shadow_comparisons_total": [((DELIVERIES,), 9.0), ((BACKLOG,), 0.0)],
            }
        )
    )

    assert seen.shadow == (
        ShadowVerdict(DELIVERIES, False, 3.5, {"primary": 1.0, "shadow": 0.0}, 9.0),
        ShadowVerdict(BACKLOG, None, None, {}, 0.0),
    )


def test_labels_are_found_by_their_keys_wherever_the_catalog_places_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each key takes another place: what is seen stays the same."""
    as_it_is = queues(
        {"q": 3.0},
        {
            "asynq_queue_latency_seconds": [(("q",), 1.5)],
            ACTIVE: [((DELIVERIES, "ledger", "source"), 0.0), ((DELIVERIES, "postgres", "fallback"), 1.0)],
            DELIVERIES: [(delivery("p", "processing"), 3.0), (delivery("p", "failure", "e2"), 6.0)],
            BACKLOG: [(("p", "e", "s"), 9.0)],
            ATTEMPTS: [(("p", "e", "failure", "500"), 9.0), (("p", "e", "success", "200"), 1.0)],
            "convoy_project_info": [(("p", "name of p", "o", "organisation"), 1.0)],
            "otel_queue_shadow_missing_series": [((DELIVERIES, "primary"), 1.0)],
            "otel_queue_shadow_drift": [((DELIVERIES,), 3.5)],
        },
    )
    before = seen_of(as_it_is)
    rows = {name: replace(row, keys=row.keys[::-1]) for name, row in CATALOG.items()}
    monkeypatch.setattr("otel_queue.catalog.CATALOG", rows)
    turned = {
        name: replace(family, samples=[(labels[::-1], value) for labels, value in family.samples])
        for name, family in as_it_is.items()
    }

    after = seen_of(turned)

    def timeless(seen: Seen) -> Seen:
        return seen._replace(queues=tuple(replace(queue, history=()) for queue in seen.queues))

    assert timeless(after) == timeless(before)
    assert [[point.pending for point in queue.history] for queue in after.queues] == [[3.0]]


def test_what_was_seen_is_worked_out_once_per_collection() -> None:
    overview = Overview(now=lambda: 1000.0)
    overview.note(queues({"q": 1.0}))
    first = overview.seen()

    assert overview.seen() is first
    overview.note(queues({"q": 2.0}))
    assert overview.seen() is not first
