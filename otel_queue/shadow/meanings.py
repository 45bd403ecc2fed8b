"""The named differences in words, for a person who decides."""

from typing import Final

from otel_queue.shadow import comparison, legacy

# By side and name: `ledger` against the corrected numbers, and the gateway's own, `legacy`, against them.
MEANINGS: Final = {
    ("ledger", comparison.SOURCE_OF_GONE_EVENT): "the event's row is gone: the database says source unknown, the "
    "ledger keeps the source it knew",
    ("ledger", comparison.RETENTION): "the database has fewer attempts than before, since old rows were dropped; the "
    "ledger's counter never falls",
    ("legacy", legacy.ZERO_FOR_KNOWN_GROUP): "a group with nothing in processing and no success was absent, and is 0",
    ("legacy", legacy.CUT_AT_1000): "groups beyond the first thousand were absent, or 0",
    ("legacy", legacy.SOURCE_OF_GONE_EVENT): "deliveries whose event's row is gone were under source http, and are "
    "under unknown (in the ledger: under the source they had)",
    ("legacy", legacy.REPLAYED_EVENT): "an event that was replayed counted once per row, as did its deliveries",
    ("legacy", legacy.TWO_SOURCES_ONE_LABEL): "of a source called http and of no source one was shown; they add up",
    ("legacy", legacy.BLANK_LABEL): "a blank source or event type was a group of its own; it counts as none",
    ("legacy", legacy.NEGATIVE_AGE): "a delivery created ahead of the database's clock had a negative age, and has 0",
    ("legacy", legacy.CLEANED_LABEL): "control characters become ?, and a label ends after 256 characters",
    ("legacy", legacy.NEVER_EXPORTED): "the gateway declared this metric and never exported it",
    ("legacy", legacy.OLDER_READING): "the gateway's snapshot is older than this reading",
    ("legacy", legacy.OTHER): "no known rule explains it; look before you cut over",
}
