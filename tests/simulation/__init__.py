"""A gateway that is simulated: it writes a real database, and tells what the hooks in its code would tell.

`Simulation` is the machinery (virtual time, clocks, workers that die), `paths` what tasks do, `operators` what people
and timers do, `tables` the rows, and `comparison` what a ledger and a database say of the same.
"""
