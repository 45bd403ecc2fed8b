"""The shadow: ledger and database compared series by series, and whether a metric is ready to change its source."""
