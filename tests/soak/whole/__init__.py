"""The whole pipeline under load and under faults, for as long as one likes.

Workers, both Redis, Sentinels, a database as the shadow, a Collector and two exporters are processes of their own.
"""
