"""The follower: keeps a ledger equal to the rows of the gateway's database, which it only reads."""
