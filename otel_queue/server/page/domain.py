"""The page's domain: where its metrics come from, the busiest projects, the worst endpoints, and what a shadow says."""

from typing import Final

from otel_queue.catalog import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG
from otel_queue.server.page.html import Html, element, together
from otel_queue.server.page.table import Column, badge, table
from otel_queue.server.page.words import UNKNOWN, count, duration, seconds, share
from otel_queue.status import DomainOverview, EndpointOverview, MetricSource, ProjectOverview, ShadowVerdict

_SOURCES: Final = (Column("metric", kind="name"), Column("comes from"), Column("fallback"), Column("state"))
_PROJECTS: Final = (
    Column("project", kind="name"),
    Column("unfinished", "deliveries", "number"),
    Column("failed", "deliveries", "number"),
    Column("in all", "deliveries", "number"),
    Column("oldest in processing", "", "number"),
)
_OLDEST: Final = (Column("endpoint", kind="name"), Column("project"), Column("oldest in processing", "", "number"))
_VERDICTS: Final = (
    Column("metric", kind="name"),
    Column("verdict"),
    Column("largest difference", "", "number"),
    Column("on one side only", "series"),
    Column("comparisons", "", "number"),
)


def domain_section(domain: DomainOverview | None) -> Html:
    """The domain lane; one sentence where none is configured."""
    if domain is None:
        text = "No domain metric is read: domain.source is none, or its source has not been read yet."
        return element("section", element("h2", "Domain"), element("p", text), id="domain")
    return element(
        "section",
        element("h2", "Domain"),
        *_projects(domain),
        *_oldest(domain),
        *_failing(domain),
        element("h3", "Where the metrics come from"),
        table("sources of the domain metrics", _SOURCES, map(_source_cells, domain.sources)),
        id="domain",
    )


def shadow_section(verdicts: tuple[ShadowVerdict, ...]) -> Html:
    """The last comparison of each metric with its shadow; nothing where none is compared."""
    if not verdicts:
        return together()
    rows = table("shadow verdicts", _VERDICTS, map(_verdict_cells, verdicts))
    return element("section", element("h2", "Shadow"), rows, id="shadow")


def is_from_fallback(source: MetricSource) -> bool:
    """Whether the metric comes from its fallback now."""
    return source.active is not None and source.active != source.source


def _source_cells(source: MetricSource) -> tuple[str, ...]:
    if source.active is None:
        state = badge("absent", "bad")
    elif is_from_fallback(source):
        state = badge("fallback in use", "warn")
    else:
        state = badge("own source", "good")
    return (
        source.metric,
        source.active or f"nowhere now; {source.source} if it can be had",
        source.fallback or "none",
        state,
    )


def _projects(domain: DomainOverview) -> tuple[Html, ...]:
    heading = element("h3", _of("Busiest projects", domain.projects, domain.project_count))
    if domain.projects is None:
        return heading, _absent(DELIVERIES)
    if not domain.projects:
        return heading, element("p", "No project has a delivery.")
    return heading, table("busiest projects", _PROJECTS, map(_project_cells, domain.projects))


def _project_cells(project: ProjectOverview) -> tuple[str, ...]:
    numbers = (project.unfinished, project.failed, project.deliveries)
    return (_named(project.name, project.project), *map(count, numbers), seconds(project.backlog_seconds))


def _oldest(domain: DomainOverview) -> tuple[Html, ...]:
    heading = element(
        "h3", _of("Endpoints with the oldest delivery in processing", domain.oldest, domain.waiting_count)
    )
    if domain.oldest is None:
        return heading, _absent(DELIVERY_BACKLOG)
    if not domain.oldest:
        return heading, element("p", "No delivery is in processing.")
    rows = (
        (_id(row.endpoint), _named(row.project_name, row.project), seconds(row.backlog_seconds))
        for row in domain.oldest
    )
    return heading, table("endpoints with the oldest delivery in processing", _OLDEST, rows)


def _failing(domain: DomainOverview) -> tuple[Html, ...]:
    heading = element("h3", _of("Endpoints with the most failing attempts", domain.failing, domain.failing_count))
    if domain.failing is None:
        return heading, _absent(ATTEMPTS)
    if not domain.failing:
        return heading, element("p", "No attempt has failed.")
    lately = domain.lately_seconds
    columns = (
        Column("endpoint", kind="name"),
        Column("project"),
        Column("failed lately" if lately is None else f"failed in the last {duration(lately)}", "attempts", "number"),
        Column("failed", "attempts", "number"),
        Column("of all attempts", "", "number"),
    )
    return heading, table("endpoints with the most failing attempts", columns, map(_failing_cells, domain.failing))


def _failing_cells(row: EndpointOverview) -> tuple[str, ...]:
    failed, attempts = row.failed, row.attempts
    part = UNKNOWN if failed is None or attempts is None else share(failed, attempts)
    return _id(row.endpoint), _named(row.project_name, row.project), count(row.failed_lately), count(failed), part


def _verdict_cells(verdict: ShadowVerdict) -> tuple[str, ...]:
    if verdict.within_tolerance is None:
        word = badge("not compared yet", "quiet")
    else:
        word = badge("within tolerance", "good") if verdict.within_tolerance else badge("out of tolerance", "bad")
    unit = " s" if verdict.metric.endswith("_seconds") else ""
    drift = UNKNOWN if verdict.drift is None else together(f"{verdict.drift:.6g}{unit}")
    sides = ", ".join(f"{count(value)} in {side}" for side, value in verdict.missing.items())
    return verdict.metric, word, drift, sides or UNKNOWN, count(verdict.comparisons)


def _named(name: str, project: str) -> Html:
    return together(element("span", name, class_="name"), " ", _id(project)) if name else _id(project)


def _id(text: str) -> Html:
    return element("span", text, class_="id")


def _of(title: str, rows: tuple[object, ...] | None, in_all: int) -> str:
    return f"{title} ({len(rows)} of {count(in_all)})" if rows and in_all > len(rows) else title


def _absent(metric: str) -> Html:
    return element("p", element("span", "unknown", class_="unknown"), f": {metric} cannot be had now.")
