"""Two ledgers on one Redis: the one that hooks write, and the one that a follower of the database keeps."""

from typing import Any

import redis

from otel_queue.config import Config, FollowConfig, LedgerConfig, RedisConfig
from otel_queue.ledger.connect import ledger_reader, ledger_side
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.merge import Merge, Report, Side
from otel_queue.lifecycle import Record
from tests.ledger.ledgers import families_of, now_us
from tests.ledger.oracle import Families
from tests.servers.redis import RedisServer

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
SKEW_US = 5 * SECOND_US


class TwoLedgers:
    """Begun on construction, and swept `SECOND_US` ago, if not told otherwise."""

    def __init__(
        self,
        server: RedisServer,
        *,
        rule: Rule | None = None,
        rows_rule: Rule | None = None,
        swept_us: int | None = None,
    ) -> None:
        self.config = Config(redis=RedisConfig(url=server.url), ledger=LedgerConfig(), follow=FollowConfig())
        self.client = redis.Redis(port=server.port)
        self.hooks: Side = ledger_side(self.config)
        self.rows: Side = ledger_side(self.config.followed)
        self.hooks.upkeep.begin(rule)
        self.rows.upkeep.begin(rows_rule or rule)
        self.sweep(now_us() - SECOND_US if swept_us is None else swept_us)

    def sweep(self, began_us: int) -> None:
        """As a follower does that has read all rows: what it has of them is as of this time, or later."""
        self.client.set("oq-db:swept", began_us)

    def follow(self, *records: Record) -> None:
        """As a follower does with rows that it has read at the records' times."""
        assert self.rows.write(records) == 0

    def hook(self, *records: Record) -> None:
        assert self.hooks.write(records) == 0

    def merge(self, *, is_dry: bool = False, **options: Any) -> Report:
        return Merge(self.rows, self.hooks, **options).run(is_dry=is_dry)

    def families(self, *, of_rows: bool = False) -> Families:
        """What would be exported, with the moment since which something waits in the place of its age."""
        snapshot = ledger_reader(self.config.followed if of_rows else self.config).snapshot()
        assert not snapshot.failures, snapshot.failures
        return {
            name: {
                labels: snapshot.time - value if name.endswith("_seconds") and value else value
                for labels, value in samples.items()
            }
            for name, samples in families_of(snapshot).items()
        }

    def statuses(self) -> dict[tuple[str, str], float]:
        """Deliveries by endpoint and status, as they are exported."""
        found: dict[tuple[str, str], float] = {}
        for labels, count in self.families()["convoy_event_delivery_queue_total"].items():
            found[labels[2], labels[3]] = found.get((labels[2], labels[3]), 0) + count
        return found

    def keys(self) -> dict[bytes, Any]:
        """All that the ledger of the hooks holds."""
        names: Any = self.client.keys("oq:*")
        return {name: self.client.dump(name) for name in names}

    def assert_counts_add_up(self) -> None:
        assert [each for project in self.hooks.projects() for each in self.hooks.upkeep.check(project)] == []

    def close(self) -> None:
        for side in (self.hooks, self.rows):
            side.close()
        self.client.close()


def total(report: Report, what: str) -> int:
    """How many of that were merged, in all projects."""
    return sum(count for (_, of), count in report.merged.items() if of == what)


def found(report: Report) -> dict[str, int]:
    """What was merged, by what it is."""
    return {what: total(report, what) for what in sorted({what for _, what in report.merged})}
