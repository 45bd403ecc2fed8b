"""compose.yaml, read by Compose's own loader; and its secrets, with a real Redis and a real PostgreSQL."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from otel_queue.config import load_config
from tests.deploy.checks import DEPLOY, check, unknown_settings
from tests.go_program import ROOT
from tests.servers.otel_queue import Scrape, serve
from tests.servers.postgres import SUPERUSER, postgres_program, postgres_server
from tests.servers.prometheus import find_tool
from tests.servers.redis import RedisServer, redis_server

COMPOSE = DEPLOY / "compose"
# There is no program in the Collector's image that could ask.
WITHOUT_HEALTHCHECK = {"collector"}


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project as Compose sees it."""
    report = check("compose", str(COMPOSE / "compose.yaml"))
    assert report.faults == []
    found: dict[str, Any] = report.found
    return found


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that make-secrets.sh fills."""
    made = tmp_path / "secrets"
    subprocess.run(["sh", COMPOSE / "make-secrets.sh", made], check=True, capture_output=True)
    return made


@contextmanager
def redis_with(acl: Path) -> Iterator[RedisServer]:
    with redis_server(args=("--aclfile", str(acl))) as server:
        yield server


def test_every_file_that_is_mounted_exists(project: dict[str, Any]) -> None:
    mounts = [each for service in project["services"].values() for each in service.get("volumes", ())]
    bound = [Path(each["source"]) for each in mounts if each["type"] == "bind"]
    assert len(bound) >= 10
    assert [str(path) for path in bound if not path.is_file()] == []
    assert all(each["read_only"] for each in mounts if each["type"] == "bind")


def test_the_script_makes_exactly_the_secrets_that_are_used(project: dict[str, Any], secrets: Path) -> None:
    files = {Path(each["file"]) for each in project["secrets"].values()}
    assert {path.parent for path in files} == {COMPOSE / "secrets"}
    assert {path.name for path in files} == {path.name for path in secrets.iterdir()}
    used = {each["source"] for service in project["services"].values() for each in service.get("secrets", ())}
    assert used == set(project["secrets"])


def test_secrets_are_made_once_and_for_their_owner_and_the_containers(secrets: Path) -> None:
    again = subprocess.run(["sh", COMPOSE / "make-secrets.sh", secrets], capture_output=True)
    assert again.returncode != 0
    assert secrets.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in secrets.iterdir()} == {0o444}
    passwords = {(secrets / f"{name}-password").read_text() for name in ("role", "postgres", "grafana")}
    assert len(passwords) == 3
    assert all(re.fullmatch("[0-9a-f]{48}", each) for each in passwords)
    ignored = subprocess.run(["git", "check-ignore", COMPOSE / "secrets" / "x"], cwd=ROOT, capture_output=True)
    assert ignored.returncode in (0, 128), "git would take them"  # 128: not a checkout


def test_ports_are_published_on_loopback_alone(project: dict[str, Any]) -> None:
    published = [each for service in project["services"].values() for each in service.get("ports", ())]
    assert sorted(each["published"] for each in published) == ["3000", "9090", "9464"]
    assert {each["host_ip"] for each in published} == {"127.0.0.1"}


def test_images_are_named_by_version_and_our_own_are_built(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        _, _, tag = service["image"].rpartition(":")
        assert re.match(r"v?\d+\.\d+", tag), f"{name}: {service['image']}"
        if "build" in service:
            build = service["build"]
            assert (Path(build["context"]), build["dockerfile"]) == (ROOT, "examples/deploy/Dockerfile")


def test_every_service_can_be_asked_for_its_health(project: dict[str, Any]) -> None:
    without = {
        name
        for name, service in project["services"].items()
        if "healthcheck" not in service and "build" not in service  # the image has its own
    }
    assert without == WITHOUT_HEALTHCHECK


def test_settings_and_the_collectors_variables_are_known(project: dict[str, Any]) -> None:
    for service in project["services"].values():
        if "build" in service:
            assert unknown_settings(service["environment"], service["command"] or ()) == set()
    gateway = (ROOT / "collector-config" / "gateway.yaml").read_text(encoding="utf-8")
    for name in project["services"]["collector"]["environment"]:
        assert f"${{env:{name}:-" in gateway


def test_promtool_takes_the_configuration_with_the_rules_beside_it(project: dict[str, Any], tmp_path: Path) -> None:
    for mount in project["services"]["prometheus"]["volumes"]:
        if mount["type"] == "bind":
            shutil.copy(mount["source"], tmp_path / Path(mount["target"]).name)
    run = subprocess.run(
        [find_tool("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 rule files found" in run.stdout


def test_every_target_is_a_service(project: dict[str, Any]) -> None:
    config = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text(encoding="utf-8"))
    targets = [name for job in config["scrape_configs"] for each in job["static_configs"] for name in each["targets"]]
    assert {target.rpartition(":")[0] for target in targets} == {"serve", "collector"}
    datasource = yaml.safe_load((COMPOSE / "grafana-datasource.yaml").read_text(encoding="utf-8"))["datasources"][0]
    assert datasource["url"] == "http://prometheus:9090"
    assert {"serve", "collector", "prometheus"} <= set(project["services"])


def test_the_made_configuration_is_valid_and_asks_the_services(project: dict[str, Any], secrets: Path) -> None:
    config = load_config(environment={}, file=secrets / "otel-queue.toml")
    assert config.postgres.dsn is not None
    named = (str(config.redis.location), str(config.ledger_redis.location))
    assert named == ("redis://redis:6379/0", "redis://ledger:6379/0")
    assert {"redis", "ledger", "postgres"} <= set(project["services"])
    assert load_config(environment={}, file=secrets / "demo.toml").ledger_redis.url == config.ledger_redis.url


def test_the_made_users_may_do_what_the_demo_and_the_exporter_do(secrets: Path) -> None:
    with redis_with(secrets / "redis.acl") as queues, redis_with(secrets / "ledger.acl") as ledger:
        here = in_place_of(queues, ledger)
        (secrets / "here.toml").write_text(here((secrets / "demo.toml").read_text()))
        demo = [str(Path(sys.executable).with_name("otel-queue")), "demo", "--listen", "127.0.0.1:0"]
        demo += ["--redis-url", queues.url, "--config", str(secrets / "here.toml")]
        with subprocess.Popen(demo, stderr=subprocess.DEVNULL) as running:
            try:
                config = here((secrets / "otel-queue.toml").read_text())
                url = load_config(environment={}, file=written(secrets / "serve.toml", config)).redis.location.reveal()
                with serve(url, config=config) as exporter:
                    scrape = exporter.scrape_until(has_queues_and_deliveries, what="queues and deliveries are exported")
            finally:
                running.terminate()
        assert running.returncode == 0
    assert scrape.value("otel_queue_up", lane="queue") == 1
    assert scrape.value("otel_queue_up", lane="ledger") == 1
    assert scrape.values("otel_queue_errors_total", reason="permission") == []


def test_anybody_may_ask_the_ledger_for_its_health_and_for_nothing_else(secrets: Path) -> None:
    with redis_with(secrets / "ledger.acl") as ledger, ledger.client() as client:
        assert client.ping()
        with pytest.raises(Exception, match="no permissions"):
            client.get("oq:x")


def test_the_database_is_set_up_for_the_role_of_the_made_configuration(
    project: dict[str, Any], secrets: Path, tmp_path: Path
) -> None:
    config = load_config(environment={}, file=secrets / "otel-queue.toml")
    assert config.postgres.dsn is not None
    scripts = {
        Path(mount["target"]).name: Path(mount["source"]).read_text(encoding="utf-8")
        for mount in project["services"]["postgres"]["volumes"]
        if "/docker-entrypoint-initdb.d/" in mount["target"]
    }
    with postgres_server() as server:
        server.execute("CREATE DATABASE made")
        for name, text in sorted(scripts.items()):
            script = written(tmp_path / name, text.replace("/run/secrets", str(secrets)))
            where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", SUPERUSER, "-d", "made"]
            words = [postgres_program("psql"), "-v", "ON_ERROR_STOP=1", *where, "-f", str(script)]
            done = subprocess.run(words, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        dsn = config.postgres.dsn.reveal().replace("postgres:5432/convoy", f"127.0.0.1:{server.port}/made")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(id) FROM convoy.events").fetchone() == (0,)


def has_queues_and_deliveries(scrape: Scrape) -> bool:
    queues, deliveries = "asynq_queue_busy_workers", "convoy_event_delivery_queue_total"
    return bool(sum(scrape.values(queues)) and scrape.values(deliveries))


def in_place_of(queues: RedisServer, ledger: RedisServer) -> Callable[[str], str]:
    """What puts this machine's servers in the place of the services."""

    def replace(text: str) -> str:
        local = text.replace("redis:6379", f"127.0.0.1:{queues.port}").replace(
            "ledger:6379", f"127.0.0.1:{ledger.port}"
        )
        # Nobody asks the database here.
        return local.partition("[postgres]")[0].replace('fallback = "postgres"', 'fallback = "none"')

    return replace


def written(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file
