"""The contract with dashboards that exist: names, types and label keys, typed by hand from what runs today.

`names_of_today.json` is never generated. `becomes` marks the one type that changes, as the migration notes say.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_queue.catalog import CATALOG
from otel_queue.config import Config, QueueConfig, RedisConfig
from otel_queue.pipeline import Pipeline
from tests.asynq_writer import AsynqWriter

TODAY: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "names_of_today.json").read_text(encoding="utf-8")
)
ALL = {name: facts for names in TODAY.values() for name, facts in names.items()}
QUEUE_LANE = [name for name in ALL if name in CATALOG and CATALOG[name].owner == "inspector"]


@pytest.mark.parametrize("name", ALL)
def test_every_name_of_today_is_in_the_catalog_with_its_type_and_label_keys(name: str) -> None:
    facts = ALL[name]
    row = CATALOG[name]
    assert row.kind == facts.get("becomes", facts["type"])
    assert sorted(row.keys) == facts["labels"]


def test_the_queue_lane_exports_every_name_of_today_with_its_type_and_label_keys(redis_url: str) -> None:
    AsynqWriter(redis_url).pending("default", "CreateEventQueue", "EventWorkflowQueue")
    config = Config(redis=RedisConfig(url=redis_url), queue=QueueConfig(min_interval_seconds=0))
    pipeline = Pipeline(config)
    pipeline.start()
    exported = _exported_with_memory(pipeline)
    for name in QUEUE_LANE:
        assert exported[name] == (ALL[name]["type"], ALL[name]["labels"]), name


def _exported_with_memory(pipeline: Pipeline) -> dict[str, tuple[str, list[str]]]:
    """Scrapes until the slow lane has its values too: it is read in the background."""
    exported: dict[str, tuple[str, list[str]]] = {}
    for _ in range(200):
        text = pipeline.scrape("", None).body.decode()
        exported = {
            sample.name: (family.type, sorted(sample.labels))
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        if "asynq_queue_memory_usage_approx_bytes" in exported:
            break
    return exported
