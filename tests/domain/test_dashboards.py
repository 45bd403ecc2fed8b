"""Today's queries give the same answers, whichever source the series come from, in a real Prometheus."""

import time
from collections.abc import Iterator, Mapping

import pytest

from otel_queue.catalog import CATALOG
from otel_queue.samples import LabelValues
from tests.domain.story import Story
from tests.ledger.ledgers import Ledger
from tests.postgres.gateway import Gateway
from tests.servers.prometheus import PrometheusServer, prometheus_server
from tests.servers.redis import redis_server

STEPS = 40
STEP_SECONDS = 15
# Two ages that are read one after the other.
AGE_SECONDS = 2.0

# What dashboards and alerts ask today; $job is where the series come from.
QUERIES = """
sum(convoy_event_queue_total{$job})
sum by (project) (convoy_event_queue_total{$job})
sum by (project, source) (convoy_event_queue_total{$job, status="success"})
max by (project, source) (convoy_event_queue_total{$job})
sum by (project) (rate(convoy_event_queue_total{$job}[5m]))
sum by (source) (increase(convoy_event_queue_total{$job}[5m]))
delta(convoy_event_queue_total{$job}[5m])
sum by (status) (convoy_event_delivery_queue_total{$job})
sum by (project_name, status) (convoy_event_delivery_queue_total{$job})
sum by (organisation_name) (convoy_event_delivery_queue_total{$job, status=~"scheduled|processing|retry"})
topk(3, sum by (endpoint) (convoy_event_delivery_queue_total{$job, status="failure"}))
sum by (event_type) (convoy_event_delivery_queue_total{$job, source="http"})
sum by (endpoint) (rate(convoy_event_delivery_queue_total{$job, status="success"}[5m]))
deriv(sum by (project) (convoy_event_delivery_queue_total{$job})[5m:15s])
max_over_time(sum(convoy_event_delivery_queue_total{$job, status="processing"})[10m:15s])
sum(convoy_event_delivery_queue_total{$job, status="success"}) / sum(convoy_event_delivery_queue_total{$job, status=~"success|failure"})
count(convoy_event_delivery_queue_total{$job})
max(convoy_event_queue_backlog_seconds{$job})
max by (project) (convoy_event_queue_backlog_seconds{$job})
max by (project, endpoint) (convoy_event_delivery_queue_backlog_seconds{$job})
topk(5, max by (endpoint, source) (convoy_event_delivery_queue_backlog_seconds{$job}))
convoy_event_queue_backlog_seconds{$job} > bool 300
convoy_event_delivery_queue_backlog_seconds{$job} > 300
max by (endpoint) (convoy_event_delivery_queue_backlog_seconds{$job}) > 3600
count(convoy_event_delivery_queue_backlog_seconds{$job} > 300)
max_over_time(max(convoy_event_queue_backlog_seconds{$job})[10m:15s])
absent(convoy_event_queue_total{$job, project="P"})
sum by (http_status_code) (convoy_event_delivery_attempts_total{$job})
sum by (endpoint, status) (rate(convoy_event_delivery_attempts_total{$job}[5m]))
sum by (endpoint) (increase(convoy_event_delivery_attempts_total{$job, status="failure"}[5m])) > 0
"""  # noqa: E501 - a query is one line
# What counts series, or would show one that is absent, sees a known group with nothing in processing as the 0 it is;
# and the attempts had no series.
CHANGED = {
    "max by (project, endpoint) (convoy_event_delivery_queue_backlog_seconds{$job})",
    "convoy_event_queue_backlog_seconds{$job} > bool 300",
    *(query for query in QUERIES.splitlines() if "attempts" in query),
}


@pytest.fixture(scope="module")
def history(postgres: object) -> Iterator[tuple[PrometheusServer, float]]:
    """Ten minutes of all sources side by side, and the time at which they end."""
    end = time.time() // STEP_SECONDS * STEP_SECONDS - 3600
    lines: dict[str, list[str]] = {}
    with redis_server() as server:
        gateway, ledger = Gateway(postgres, "plain"), Ledger(server.url)  # type: ignore[arg-type]
        story = Story(gateway, ledger, seed=4)
        for number in range(STEPS):
            story.step()
            at = end - (STEPS - 1 - number) * STEP_SECONDS
            for job, families in (
                ("ledger", ledger.families()),
                *((name, _families(gateway, name)) for name in ("corrected", "legacy")),
            ):
                for name, samples in families.items():
                    lines.setdefault(name, []).extend(_lines(name, job, samples, at))
        ledger.close()
        gateway.close()
    text = "".join(line for name in sorted(lines) for line in sorted(lines[name])) + "# EOF\n"
    with prometheus_server({}, history=text) as prometheus:
        yield prometheus, end


def _families(gateway: Gateway, parity: str) -> Mapping[str, Mapping[LabelValues, float]]:
    return {name: dict(family.samples) for name, family in gateway.families(parity).items()}  # type: ignore[arg-type]


def _lines(name: str, job: str, samples: Mapping[LabelValues, float], at: float) -> Iterator[str]:
    for values, value in samples.items():
        labels = ",".join(f'{key}="{label}"' for key, label in zip(CATALOG[name].keys, values, strict=True))
        yield f'{name}{{job="{job}",{labels}}} {value} {at:.0f}\n'


Answer = Mapping[frozenset[tuple[str, str]], float]


def answers(history: tuple[PrometheusServer, float], query: str, job: str) -> Answer:
    prometheus, end = history
    found = prometheus.query(query.replace("$job", f'job="{job}"'), at=end)
    return {
        frozenset((key, value) for key, value in series.labels.items() if key not in ("job", "__name__")): series.value
        for series in found
    }


def same(query: str, one: Answer, other: Answer) -> bool:
    tolerance = AGE_SECONDS if "backlog" in query else 1e-9
    return one.keys() == other.keys() and all(abs(one[labels] - other[labels]) <= tolerance for labels in one)


@pytest.mark.parametrize("query", QUERIES.strip().splitlines())
def test_a_query_gives_the_same_answer_from_the_ledger_as_from_the_database(
    history: tuple[PrometheusServer, float], query: str
) -> None:
    ledger, corrected, legacy = (answers(history, query, job) for job in ("ledger", "corrected", "legacy"))
    assert ledger or query.startswith("absent"), "a query that answers nothing shows nothing"
    assert same(query, ledger, corrected)
    assert same(query, ledger, legacy) is (query not in CHANGED)
