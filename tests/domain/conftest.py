from tests.postgres.conftest import gateway, own_gateway, postgres  # noqa: F401 - fixtures of the tests here
