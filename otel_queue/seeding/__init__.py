"""From the database's rows to the ledger: before workers record, and when it has to be set right."""
