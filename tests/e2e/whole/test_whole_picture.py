"""Every number of the dashboard equals what was driven: queues, domain, workers, pipeline, migration.

The shipped dashboard, rules and Collector configurations; asynq and a recorder in Go, workers in Python, both Redis and
PostgreSQL. The exporter is scraped and pushes, which nobody does: both ways have to show the same.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import pytest

from otel_queue.catalog import exported_by
from otel_queue.version import __version__
from tests.e2e.test_ledger_pull_equals_push import comparable
from tests.e2e.test_pull_equals_push import SCRAPE_SERIES, names
from tests.e2e.whole import plan
from tests.e2e.whole.answers import Labels, Question, countable, is_as
from tests.e2e.whole.delivering_worker import FIRST, RETRY
from tests.e2e.whole.oracle import Oracle
from tests.e2e.whole.picture import STILL, STILL_TASKS, Picture, Way, picture
from tests.operations.dashboards import Query, queries, sent
from tests.postgres.gateway import Gateway
from tests.servers.postgres import PostgresServer
from tests.servers.prometheus import Series

# Longer than all of it takes: a rate is that since the start.
RATE_INTERVAL = "15m"
WAYS: dict[str, Callable[[Picture], Way]] = {"pulled": lambda made: made.pulled, "pushed": lambda made: made.pushed}

_ROUND = "depends on which moments of a round a scrape saw"
_MACHINE = "depends on how fast this machine is"
UNKNOWN: dict[Question, str] = {
    ("Memory in Redis", "{{queue}}"): "an estimate, by samples of Redis's own bookkeeping",
    ("Attempts that succeed", "{{project}}"): _ROUND,
    ("Failures against the budget", "{{project}} 1 h"): _ROUND,
    ("Failures against the budget", "{{project}} 6 h"): _ROUND,
    ("Snapshot age", "{{lane}} {{instance}}"): _MACHINE,
    ("Since the last success", "{{lane}} {{instance}}"): _MACHINE,
    ("Collection or push takes", "{{lane}} {{instance}}"): _MACHINE,
    ("Records not taken as they came", "{{record}} again"): "depends on which record came first",
    ("Comparisons", "{{metric}}"): _MACHINE,
}
"""What the oracle cannot know. It is there all the same, and no negative number."""

# What differs from one collection to the next, beside ages.
MOVING = {"otel_queue_shadow_comparisons_total", "asynq_queue_memory_usage_approx_bytes", "otel_queue_shadow_drift"}

# All is at rest; but a scrape that comes too late on a busy machine makes series absent for a moment.
AT_REST_SECONDS = 30.0

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def made(postgres: PostgresServer) -> Iterator[Picture]:
    with contextlib.closing(Gateway(postgres, "plain")) as gateway, picture(gateway) as at_rest:
        yield at_rest


@pytest.fixture(scope="module")
def oracle(made: Picture) -> Oracle:
    return Oracle(made)


def answered(made: Picture, way: Way, expression: str) -> dict[Labels, float]:
    """Without what the example's configuration adds; `le` is a number's text."""
    variables = {"job": way.jobs, "queue": ".*", "project": ".*", "__rate_interval": RATE_INTERVAL}
    found: dict[Labels, float] = {}
    for series in made.prometheus.query(sent(expression, variables)):
        labels = {key: value for key, value in series.labels.items() if key not in ("__name__", "cluster")}
        if "le" in labels:
            labels["le"] = str(float(labels["le"]))
        assert frozenset(labels.items()) not in found, f"{expression} answers {labels} twice"
        found[frozenset(labels.items())] = series.value
    return found


def differences(made: Picture, oracle: Oracle, way: Way, query: Query) -> list[str]:
    """Where the answer is not what it has to be."""
    found = answered(made, way, countable(query.expression))
    known = oracle.answers(way)[query.panel, query.legend]
    # Of a histogram whose values are measured the last bucket is known, which has them all.
    limits = {limit for labels in known for key, limit in labels if key == "le"}
    found = {labels: value for labels, value in found.items() if not limits or dict(labels).get("le") in limits}
    return [
        f"{sorted(labels)}: {found.get(labels, 'absent')}, has to be {known.get(labels, 'absent')}"
        for labels in found.keys() | known.keys()
        if labels not in found or labels not in known or not is_as(known[labels], found[labels])
    ]


def wait_with(latest: Sequence[object], made: Picture, reached: Callable[[], bool], what: str) -> None:
    """Until `reached` is true; else with what was found latest."""
    try:
        made.wait(reached, what, AT_REST_SECONDS)
    except AssertionError as error:
        raise AssertionError("\n".join([*map(str, latest), str(error)])) from error


def is_there(made: Picture, way: Way, query: Query) -> bool:
    """Whether it answers, and with possible numbers."""
    found = answered(made, way, query.expression)
    assert all(value >= 0 and math.isfinite(value) for value in found.values()), found
    return bool(found)


def of_panels() -> list[object]:
    return [pytest.param(query, id=f"{query.panel}: {query.legend}") for query in queries()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("query", of_panels())
def test_a_number_of_the_dashboard_is_what_was_driven(made: Picture, oracle: Oracle, query: Query, way: str) -> None:
    if (query.panel, query.legend) in UNKNOWN:
        made.wait(lambda: is_there(made, WAYS[way](made), query), f"{query.panel} shows something", AT_REST_SECONDS)
        return
    latest: list[str] = []

    def is_equal() -> bool:
        latest[:] = differences(made, oracle, WAYS[way](made), query)
        return not latest

    wait_with(latest, made, is_equal, f"{query.panel} shows what was driven")


def test_the_oracle_knows_every_number_but_those_with_a_reason(made: Picture, oracle: Oracle) -> None:
    asked = {(query.panel, query.legend) for query in queries()}
    for way in WAYS.values():
        assert asked - oracle.answers(way(made)).keys() == set(UNKNOWN)
        assert oracle.answers(way(made)).keys() <= asked


def test_asynqs_own_inspector_says_what_was_driven(oracle: Oracle) -> None:
    assert {state: oracle.asynq[STILL][state] for state in STILL_TASKS} == STILL_TASKS
    runs = [(offer, endpoint) for offer, _, endpoint in plan.deliveries() if endpoint.answers or endpoint.hangs]
    again = sum(len(endpoint.answers) > 1 for _, endpoint in runs)
    processed = {name: oracle.asynq[name]["processed_total"] for name in ("default", FIRST, RETRY)}
    assert processed == {"default": plan.ROUNDS * plan.GO_TASKS_A_ROUND, FIRST: len(runs), RETRY: again}


def test_an_attempt_that_is_told_again_counts_once_and_is_counted_as_such(made: Picture, oracle: Oracle) -> None:
    wanted = float(oracle.attempts_told_again())
    assert wanted > 0

    def told(way: Way) -> list[float]:
        query = f'otel_queue_duplicates_suppressed_total{{job="{way.job}", record="attempt"}}'
        return [each.value for each in made.prometheus.query(query)]

    made.wait(
        lambda: all(told(way(made)) == [wanted] for way in WAYS.values()), f"{wanted:g} are told", AT_REST_SECONDS
    )


def test_no_alert_fires_and_those_whose_condition_is_met_are_about_what_was_driven(
    made: Picture, oracle: Oracle
) -> None:
    besides = {"__name__", "alertstate", "severity", "cluster"}
    latest: list[Labels] = []

    def is_expected() -> bool:
        pending = made.prometheus.query('ALERTS{alertstate="pending"}')
        told = {frozenset((key, value) for key, value in each.labels.items() if key not in besides) for each in pending}
        latest[:] = sorted(told ^ oracle.alerts(), key=sorted)
        return not latest

    wait_with(latest, made, is_expected, "what is pending follows from what was driven")
    assert made.prometheus.query('ALERTS{alertstate="firing"}') == []


def test_the_exporters_series_are_the_same_pulled_and_pushed_through_agent_and_gateway(made: Picture) -> None:
    def series(way: Way) -> list[Series]:
        found = made.prometheus.query(f'{{job="{way.job}", __name__!="ALERTS", __name__!="ALERTS_FOR_STATE"}}')
        return [
            Series({key: value for key, value in each.labels.items() if key != "cluster"}, each.value) for each in found
        ]

    def compared(way: Way) -> dict[frozenset[tuple[str, str]], float | None]:
        return {
            labels: None if dict(labels)["__name__"] in MOVING else value
            for labels, value in comparable(series(way)).items()
        }

    made.wait(lambda: compared(made.pulled) == compared(made.pushed), "pull and push agree", AT_REST_SECONDS)
    assert names(series(made.pulled)) - names(series(made.pushed)) == SCRAPE_SERIES
    of_queues = {row.name for row in exported_by("inspector", __version__)}
    assert names(series(made.pushed)) >= of_queues
