"""The demo: an embedded Redis and a simulated Convoy workload in true Asynq format."""
