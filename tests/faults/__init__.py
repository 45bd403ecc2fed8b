"""Drills: what is exported while something is broken, and after it is mended.

Throughout, every scrape is answered, and no value is ever made up: a series tells the truth, tells what was true
at most `max_staleness_seconds` ago, or is absent. `otel_queue_up` and `otel_queue_errors_total` say what is wrong.
"""
