"""The ledger: domain counts with a memory, in Redis."""
