"""Takes what rows say, out of the ledger that a follower of the database keeps, into the ledger that hooks write."""

from otel_queue.ledger.merge.merge import Merge
from otel_queue.ledger.merge.report import Report
from otel_queue.ledger.merge.side import Side

__all__ = ["Merge", "Report", "Side"]
