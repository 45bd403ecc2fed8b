"""The short form of `python -m tests.soak exactness`."""

import pytest

from tests.soak.exactness import Plan, run

SEED = 20_240_229


@pytest.mark.timeout(300)
@pytest.mark.parametrize("writer", ["committed", "sync", "buffered"])
def test_twenty_thousand_records_through_kills_and_cuts_are_each_counted_once(
    writer: str,
) -> None:
    """With `committed` nothing is lost; with the others at most what was queued in writers that were killed."""
    records = 20_000 if writer == "committed" else 6_000
    result = run(Plan(records, SEED, writer, kills=5, redis_kills=2, cuts=3))
    assert (result.missing, result.wrong) == (0, [])
    assert result.redelivered > 0
    if writer == "committed":
        assert (result.may_be_lost, result.lost) == (0, 0)
