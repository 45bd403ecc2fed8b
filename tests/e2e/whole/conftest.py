from tests.postgres.conftest import postgres

__all__ = ["postgres"]
