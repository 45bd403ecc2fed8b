"""The text that a Collector is given; what it does with it is tested in tests/e2e."""

import re
from typing import Any

import yaml

from otel_queue.catalog import CATALOG
from otel_queue.export.allow_lists import collector_processors


def processors(**attributes: tuple[str, ...]) -> Any:
    return yaml.safe_load("processors:\n" + collector_processors(attributes))["processors"]


def statements(**attributes: tuple[str, ...]) -> dict[str, str]:
    """What is done by metric."""
    found = [
        line.split(" where metric.name == ")
        for line in processors(**attributes)["transform/catalog"]["metric_statements"]
    ]
    return {name.strip('"'): function for function, name in found}


def test_both_processors_name_every_metric_of_the_catalog_and_no_other() -> None:
    passed = processors()["filter/catalog"]["metric_conditions"][0]
    assert re.findall(r'"([^"]+)"', passed) == list(CATALOG)
    assert list(statements()) == list(CATALOG)


def test_counts_are_summed_ages_and_flags_keep_the_largest() -> None:
    told = statements()
    assert told["asynq_queue_size"] == 'aggregate_on_attributes("sum", ["queue"])'
    assert told["asynq_queue_memory_usage_approx_bytes"] == 'aggregate_on_attributes("sum", ["queue"])'
    assert told["asynq_queue_latency_seconds"] == 'aggregate_on_attributes("max", ["queue"])'
    assert told["asynq_queue_paused_total"] == 'aggregate_on_attributes("max", ["queue"])'
    assert told["asynq_task_wait_seconds"] == 'aggregate_on_attributes("sum", ["queue", "task_type"])'


def test_a_narrower_list_keeps_the_order_of_the_row_and_an_empty_one_nothing() -> None:
    told = statements(convoy_ingest_total=("source",), asynq_tasks_enqueued_total=("state", "queue"), asynq_servers=())
    assert told["convoy_ingest_total"] == 'aggregate_on_attributes("sum", ["source"])'
    assert told["asynq_tasks_enqueued_total"] == 'aggregate_on_attributes("sum", ["queue", "state"])'
    assert told["asynq_servers"] == 'aggregate_on_attributes("sum", [])'
    assert told["convoy_ingest_success"] == 'aggregate_on_attributes("sum", ["project", "source"])'


def test_an_error_keeps_data_back_instead_of_letting_a_label_through() -> None:
    assert {name: each["error_mode"] for name, each in processors().items()} == {
        "filter/catalog": "propagate",
        "transform/catalog": "propagate",
    }
