"""Benchmarks: `make bench`, or `make bench ONLY=NAME`. Each prints a ratio of one run beside its budget."""
