from tests.ledger.conftest import ledger, no_key_without_a_life
from tests.postgres.conftest import any_gateway, gateway, partitioned_gateway, postgres

__all__ = ["any_gateway", "gateway", "ledger", "no_key_without_a_life", "partitioned_gateway", "postgres"]
