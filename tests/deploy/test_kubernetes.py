"""What `kubectl apply -k` would send, checked as the API server does; and that the objects fit each other."""

import re
import runpy
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_queue.cli import FINDING, UNREACHABLE, USAGE
from otel_queue.config import Config, load_config
from otel_queue.config.settings import ServerConfig
from otel_queue.shard import Shard, parse_shard
from tests.deploy.checks import DEPLOY, check, unknown_settings
from tests.operations.rule_files import ALERTS, RECORDING

KUBERNETES = DEPLOY / "kubernetes"
Object = Mapping[str, Any]


class Applied:
    """The objects of one folder."""

    def __init__(self, folder: str) -> None:
        report = check("kustomize", str(KUBERNETES / folder))
        assert report.faults == []
        self.objects: list[Object] = report.found

    def one(self, kind: str) -> Any:
        [found] = [each for each in self.objects if each["kind"] == kind]
        return found

    @property
    def exporter(self) -> Object:
        """The Deployment, or the StatefulSet in its place."""
        [found] = [each for each in self.objects if each["kind"] in ("Deployment", "StatefulSet")]
        return found

    @property
    def pod(self) -> Any:
        return self.exporter["spec"]["template"]

    @property
    def job_pod(self) -> Any:
        return self.one("CronJob")["spec"]["jobTemplate"]["spec"]["template"]


@pytest.fixture(scope="module", params=["replicas", "shards"])
def applied(request: pytest.FixtureRequest) -> Applied:
    return Applied(request.param)


def container(pod: Object) -> Any:
    [only] = pod["spec"]["containers"]
    return only


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return bool(selector) and selector.items() <= labels.items()


def environment(pod: Object, index: int = 0) -> dict[str, str]:
    """The container's variables as a kubelet sets them; what a Secret holds is made up by its key's name."""
    made_up = {"ledger-url": "redis://:x@ledger:6379/0", "postgres-dsn": "postgresql://o:x@postgres:5432/convoy"}
    found: dict[str, str] = {}
    for item in container(pod)["env"]:
        source = item.get("valueFrom", {})
        if "secretKeyRef" in source:
            value = made_up[source["secretKeyRef"]["key"]]
        elif "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "metadata.labels['apps.kubernetes.io/pod-index']"
            value = str(index)
        else:
            value = re.sub(r"\$\((\w+)\)", lambda named: found[named[1]], item["value"])
        found[item["name"]] = value
    return found


def configuration(applied: Applied, pod: Object, tmp_path: Path, index: int = 0) -> Config:
    """What otel-queue reads in such a pod."""
    secret = tmp_path / "redis-password"
    secret.write_text("x")
    for volume, mount in mounts(pod):
        if "secret" in volume:
            [item] = volume["secret"]["items"]
            password_file = f"{mount['mountPath']}/{item['path']}"
    own = environment(pod, index)
    file = tmp_path / "otel-queue.toml"
    text = applied.one("ConfigMap")["data"][Path(own["OTEL_QUEUE_CONFIG"]).name]
    assert password_file in text
    file.write_text(text.replace(password_file, str(secret)))
    return load_config(environment=own | {"OTEL_QUEUE_CONFIG": str(file)})


def mounts(pod: Object) -> Iterator[tuple[Any, Any]]:
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in container(pod)["volumeMounts"]:
        yield volumes[mount["name"]], mount


def test_the_service_leads_to_the_exporters_and_not_to_the_job(applied: Applied) -> None:
    service = applied.one("Service")["spec"]
    assert selects(service["selector"], applied.pod["metadata"]["labels"])
    assert not selects(service["selector"], applied.job_pod["metadata"]["labels"])
    assert selects(applied.exporter["spec"]["selector"]["matchLabels"], applied.pod["metadata"]["labels"])
    ports = {port["name"]: port["containerPort"] for port in container(applied.pod)["ports"]}
    [port] = service["ports"]
    assert ports[port["targetPort"]] == port["port"]


def test_the_exporter_listens_where_its_port_is(applied: Applied) -> None:
    arguments = container(applied.pod)["args"]
    [port] = container(applied.pod)["ports"]
    assert arguments[arguments.index("--listen") + 1] == f"0.0.0.0:{port['containerPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container(applied.pod)[probe]["httpGet"]["port"] == port["name"]


def test_the_monitor_finds_the_service_and_waits_longer_than_a_scrape_takes(applied: Applied) -> None:
    monitor, service = applied.one("ServiceMonitor"), applied.one("Service")
    assert selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"]["labels"])
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    timeout, interval = (float(endpoint[key].removesuffix("s")) for key in ("scrapeTimeout", "interval"))
    assert ServerConfig().scrape_budget_seconds < timeout <= interval
    assert endpoint["honorLabels"] is True
    # What the alert on targets asks for: `job` is the Service's name.
    assert 'job=~"otel-queue' in ALERTS.read_text(encoding="utf-8")
    assert service["metadata"]["name"].startswith("otel-queue")


def test_a_pod_that_cannot_read_redis_stays_a_target(applied: Applied) -> None:
    assert container(applied.pod)["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert applied.one("Service")["spec"]["publishNotReadyAddresses"] is True
    assert applied.one("PodDisruptionBudget")["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_no_restart_is_asked_for_because_redis_is_gone(applied: Applied) -> None:
    for probe in ("startupProbe", "livenessProbe"):
        assert container(applied.pod)[probe]["httpGet"]["path"] == "/healthz"


def test_probes_and_the_end_wait_as_long_as_the_settings_say(applied: Applied, tmp_path: Path) -> None:
    config = configuration(applied, applied.pod, tmp_path)
    assert container(applied.pod)["readinessProbe"]["timeoutSeconds"] > (
        config.queue.timeout_seconds + config.redis.connect_timeout_seconds
    )
    assert applied.pod["spec"]["terminationGracePeriodSeconds"] > config.otlp.shutdown_timeout_seconds


def test_a_disruption_takes_one_exporter_and_never_waits_for_the_job(applied: Applied) -> None:
    budget = applied.one("PodDisruptionBudget")["spec"]
    assert selects(budget["selector"]["matchLabels"], applied.pod["metadata"]["labels"])
    assert not selects(budget["selector"]["matchLabels"], applied.job_pod["metadata"]["labels"])
    assert budget["maxUnavailable"] < applied.exporter["spec"]["replicas"]


def test_the_policy_lets_pass_what_the_configuration_names_and_the_scrape(applied: Applied, tmp_path: Path) -> None:
    policy = applied.one("NetworkPolicy")["spec"]
    for pod in (applied.pod, applied.job_pod):
        assert selects(policy["podSelector"]["matchLabels"], pod["metadata"]["labels"])
    inward = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert inward == {port["name"] for port in container(applied.pod)["ports"]}
    outward = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    config = configuration(applied, applied.pod, tmp_path)
    needed = {port for place in (config.redis, config.ledger_redis) for _, port in place.location.nodes}
    assert needed | {53, 5432} == outward


def test_what_is_set_is_a_setting(applied: Applied) -> None:
    for pod in (applied.pod, applied.job_pod):
        own = {item["name"]: item for item in container(pod)["env"]}
        assert unknown_settings(own, container(pod)["args"]) - {"--json"} == set()
        # Else a Service of the same name sets variables that begin like settings.
        assert pod["spec"]["enableServiceLinks"] is False


def test_the_configuration_of_both_pods_is_valid(applied: Applied, tmp_path: Path) -> None:
    for pod in (applied.pod, applied.job_pod):
        config = configuration(applied, pod, tmp_path)
        assert (config.domain.source, config.domain.fallback) == ("ledger", "postgres")
        assert config.redis.password is not None


def test_a_changed_setting_is_a_rollout(applied: Applied) -> None:
    name = applied.one("ConfigMap")["metadata"]["name"]
    assert re.fullmatch("otel-queue-[a-z0-9]{10}", name)
    for pod in (applied.pod, applied.job_pod):
        assert [volume["configMap"]["name"] for volume, _ in mounts(pod) if "configMap" in volume] == [name]


def test_secrets_are_referred_to_and_the_readme_creates_their_keys(applied: Applied) -> None:
    assert not any(each["kind"] == "Secret" for each in applied.objects)
    keys = set()
    for pod in (applied.pod, applied.job_pod):
        references = [
            item["valueFrom"]["secretKeyRef"]
            for item in container(pod)["env"]
            if "secretKeyRef" in item.get("valueFrom", {})
        ]
        sources = [volume["secret"] for volume, _ in mounts(pod) if "secret" in volume]
        assert {each["name"] for each in references} | {each["secretName"] for each in sources} == {"otel-queue"}
        keys |= {each["key"] for each in references} | {item["key"] for each in sources for item in each["items"]}
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert keys == set(re.findall(r"--from-(?:file|literal)=([a-z-]+)", readme))


def test_each_shard_takes_its_part_and_together_they_take_all(tmp_path: Path) -> None:
    shards = Applied("shards")
    spec = shards.one("StatefulSet")["spec"]
    assert spec["serviceName"] == shards.one("Service")["metadata"]["name"]
    taken = [configuration(shards, shards.pod, tmp_path, index).shard for index in range(spec["replicas"])]
    assert taken == [Shard(index, spec["replicas"]) for index in range(spec["replicas"])]
    assert parse_shard(environment(Applied("replicas").pod).get("OTEL_QUEUE_SHARD", "0/1")) == Shard()


def test_the_job_tries_again_for_what_may_pass_and_not_for_what_stays() -> None:
    job = Applied("replicas").one("CronJob")["spec"]["jobTemplate"]["spec"]
    *_, rule = job["podFailurePolicy"]["rules"]
    assert (rule["action"], rule["onExitCodes"]["values"]) == ("FailJob", [FINDING, USAGE])
    assert rule["onExitCodes"]["containerName"] == container(job["template"])["name"]
    assert job["backoffLimit"] > 0
    assert UNREACHABLE not in rule["onExitCodes"]["values"]


def test_the_rules_are_a_valid_object_of_the_operator_and_all_of_them() -> None:
    rule = runpy.run_path(str(KUBERNETES / "prometheus_rule.py"))["prometheus_rule"]()
    report = check("objects", text=yaml.safe_dump(rule))
    assert report.faults == []
    shipped = [yaml.safe_load(file.read_text(encoding="utf-8"))["groups"] for file in (RECORDING, ALERTS)]
    assert report.found[0]["spec"]["groups"] == list(chain(*shipped))


@pytest.mark.parametrize(
    ("written", "mistaken", "fault"),
    [
        ("readOnlyRootFilesystem", "readOnlyRootFileSystem", "unknown field"),
        ("path: /healthz", "path: healthz2\n              port: 0", "must be between 1 and 65535"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "allowPrivilegeEscalation != false"),
        ("memory: 512Mi", "memory: 64Mi", "must be less than or equal to memory limit"),
        ("drop:", "add:", "unrestricted capabilities"),
    ],
)
def test_a_mistake_is_found(written: str, mistaken: str, fault: str) -> None:
    text = yaml.safe_dump(dict(Applied("replicas").one("Deployment")))
    assert written in text
    if "port: 0" in mistaken:
        text = re.sub(r"port: metrics", "port: 0", text, count=1)
    else:
        text = text.replace(written, mistaken, 1)
    assert fault in " ".join(check("objects", text=text).faults)
