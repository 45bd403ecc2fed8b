"""Which rows a statement reads: conditions that find them by an index, and prune partitions by project and time."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from otel_queue.ledger.identity import identify
from otel_queue.postgres.driver import psycopg

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US: Final = 86_400_000_000
LAST_US: Final = 4_102_444_800_000_000
"""The end of 2099, in Unix microseconds."""

Condition = psycopg.sql.Composable
_SQL: Final = psycopg.sql.SQL
ALL: Final[Condition] = _SQL("TRUE")


class Span(NamedTuple):
    """From one time on and up to another, in Unix microseconds."""

    since_us: int
    until_us: int = LAST_US


def moment(time_us: int) -> datetime:
    """As the driver takes a time; one that no row can have becomes the nearest that it can."""
    return _EPOCH + timedelta(microseconds=min(max(time_us, 0), LAST_US))


def created(span: Span, projects: Sequence[str] | None) -> Condition:
    """Rows that were created in the span.

    `projects` are those of a partitioned table: they are named, since a partition is told by project and day.
    None is for a table without partitions.
    """
    times = _SQL("created_at >= {} AND created_at < {}").format(moment(span.since_us), moment(span.until_us))
    if projects is None:
        return times
    # What the parts of an OR have in common the planner takes out of it, and then it prunes by project alone: so each
    # project has a bound of its own, the last ones a few microseconds earlier.
    parts = (
        _of(project, _SQL("created_at >= {}").format(moment(span.since_us - number)))
        for number, project in enumerate(projects)
    )
    return _SQL("{} AND {}").format(times, _any_of(parts))


def without_time(first_id: str = "") -> Condition:
    """Rows without created_at, whose ids are not lower; a partitioned table has none."""
    return _SQL("created_at IS NULL AND id >= {}").format(first_id)


def keyed(ids: Iterable[tuple[str, str]], *, is_partitioned: bool, is_pruned: bool = False) -> Condition:
    """Rows by (project, id).

    With `is_pruned` each project's rows are looked for around the times that its ids tell: who does not find one there
    is to ask again without. An id that tells no time is looked for in all partitions of its project.
    """
    by_project: dict[str, list[str]] = {}
    for project, id_ in ids:
        by_project.setdefault(project, []).append(id_)
    if not is_partitioned:
        return _ids([id_ for same in by_project.values() for id_ in same])
    parts: list[Condition] = []
    for project, same in sorted(by_project.items()):
        times = [identify(id_).created_us for id_ in same]
        known = [time_us for time_us in times if time_us is not None]
        one = _ids(same)
        if is_pruned and len(known) == len(times):
            one = _SQL("{} AND {}").format(one, created(Span(min(known) - _DAY_US, max(known) + _DAY_US), None))
        parts.append(_of(project, one))
    return _any_of(parts)


def _of(project: str, condition: Condition) -> Condition:
    return _SQL("(project_id = {} AND {})").format(project, condition)


def _any_of(conditions: Iterable[Condition]) -> Condition:
    parts = list(conditions)
    return _SQL("({})").format(_SQL(" OR ").join(parts)) if parts else _SQL("FALSE")


def _ids(ids: list[str]) -> Condition:
    return _SQL("id = ANY({}::text[])").format(ids)
