"""Real servers for tests: context managers that start processes on loopback and always end them."""
