"""Every setting: its name, default, limits and help. Files, environment, flags and docs derive from here."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from otel_queue.catalog import CATALOG, PROJECT_INFO
from otel_queue.config.opentelemetry import OpenTelemetryConfig, Remark
from otel_queue.config.redis_url import RedisUrl, parse_redis_url
from otel_queue.config.secret import Secret
from otel_queue.config.standard_variables import TEMPORALITY
from otel_queue.shard import Shard, parse_shard

ENVIRONMENT_PREFIX: Final = "OTEL_QUEUE_"
NONE: Final = "none"
SOURCES: Final = ("ledger", "postgres")
# The metrics that have a choice; the projects' names go with the deliveries.
DOMAIN_METRICS: Final = tuple(name for name, row in CATALOG.items() if row.owner == "ledger" and name != PROJECT_INFO)


def setting(
    default: Any, help: str, *, minimum: float | None = None, name: str | None = None, flag: bool = True
) -> Any:
    """A field of a section. `name` replaces SECTION_FIELD in the environment variable and the flag."""
    return field(default=default, metadata={"help": help, "minimum": minimum, "name": name, "flag": flag})


@dataclass(frozen=True, slots=True)
class RedisConfig:
    """[redis]: where asynq keeps its queues, and who we are there. A read-only user is enough."""

    url: RedisUrl | str = setting(
        "redis://127.0.0.1:6379/0", "redis://, rediss://, unix://, redis-sentinel:// or redis-cluster:// URL"
    )
    username: str | None = setting(None, "ACL user; overrides the URL's")
    password: Secret | None = setting(None, "password of that user", flag=False)
    password_file: Path | None = setting(None, "file that holds the password")
    sentinel_username: str | None = setting(None, "ACL user at the Sentinels")
    sentinel_password: Secret | None = setting(None, "password at the Sentinels", flag=False)
    tls_ca_file: Path | None = setting(None, "CA certificates (PEM); the system's when unset")
    tls_cert_file: Path | None = setting(None, "client certificate (PEM)")
    tls_key_file: Path | None = setting(None, "key of the client certificate (PEM)")
    tls_skip_verify: bool = setting(False, "accept any server certificate; for tests only")
    connect_timeout_seconds: float = setting(2.0, "limit for one connection attempt", minimum=0.001)

    def __post_init__(self) -> None:
        """A text is kept parsed, which does not show what is secret in it; raises ConfigError."""
        if isinstance(self.url, str):
            object.__setattr__(self, "url", parse_redis_url(self.url))

    @property
    def location(self) -> RedisUrl:
        """The parsed `url`."""
        return cast(RedisUrl, self.url)


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """[queue]: the queue lane."""

    timeout_seconds: float = setting(3.0, "limit for one collection from Redis", minimum=0.01)
    min_interval_seconds: float = setting(
        1.0, "readers within this time share one collection; less than either max_staleness_seconds", minimum=0.0
    )
    max_staleness_seconds: float = setting(
        30.0, "a failing lane keeps its last values this long, then its series disappear", minimum=0.0
    )
    groups_cap: int = setting(10_000, "queues with more groups report no aggregating count and no size", minimum=0)
    memory_interval_seconds: float = setting(
        300.0, "how often memory usage is sampled with MEMORY USAGE; 0 turns it off", minimum=0.0
    )
    task_types_interval_seconds: float = setting(
        0.0, "how often tasks are sampled by type; 0 turns it off", minimum=0.0
    )
    task_types_sample: int = setting(100, "tasks sampled per queue and state", minimum=1)
    workers: bool = setting(True, "read busy workers; that transfers the payloads they work on")
    convoy: bool = setting(True, "export Convoy's two queue gauges")


@dataclass(frozen=True, slots=True)
class DomainConfig:
    """[domain]: where the domain metrics come from. [domain.metrics.NAME] says it for one of them."""

    source: str = setting("none", "ledger, postgres, or none: no domain metrics")
    fallback: str = setting("none", "where gauges come from while their source fails; a counter is absent then")
    shadow: str = setting("none", "what is compared with the source and not exported")
    fallback_after_seconds: float = setting(60.0, "how long a source fails before its fallback is taken", minimum=0.0)
    return_after_seconds: float = setting(120.0, "how long it is well again before it is taken back", minimum=0.0)
    gate_seconds: float = setting(
        86_400.0, "a metric is ready to cut over when it has been within tolerance this long", minimum=0.0
    )
    gate_comparisons: int = setting(300, "and in this many comparisons in a row", minimum=1)
    compatibility: bool = setting(False, "export the compatibility metrics too")
    labels: str = setting("full", "full, or lean: no names, organisation and event type, but convoy_project_info")
    most_series: int = setting(
        20_000, "series per project and metric; endpoints beyond it add up under `other`", minimum=1
    )
    shard: str = setting("0/1", "I/N: of N exporters that share the projects this is number I, from 0", name="shard")


@dataclass(frozen=True, slots=True)
class MetricConfig:
    """[domain.metrics.NAME]: what is said for one domain metric; None is as in [domain].

    `absolute` and `relative` (a share of the value), and `age_seconds` where the values are ages, are by how much
    shadow and source may differ.
    """

    source: str | None = None
    fallback: str | None = None
    shadow: str | None = None
    absolute: float | None = None
    relative: float | None = None
    age_seconds: float | None = None


class Sources(NamedTuple):
    """Where one domain metric comes from; None is nowhere."""

    source: str | None
    fallback: str | None
    shadow: str | None


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """[ledger]: the domain lane. Workers write the ledger, the exporter reads it."""

    url: RedisUrl | str | None = setting(
        None, "the ledger's Redis, if it is not the queues': a full one must not stop them"
    )
    namespace: str = setting("oq", "first part of the ledger's keys")
    retention_days: int = setting(
        0, "days after which `serve` takes a day out of the counts; 0: a hook or `ledger expire` does", minimum=0
    )
    memory_limit_bytes: int = setting(
        0, "writers wait while the ledger's Redis uses more memory than this; 0: no guard", minimum=0
    )
    timeout_seconds: float = setting(5.0, "limit for one collection from the ledger", minimum=0.01)
    max_staleness_seconds: float = setting(
        60.0, "a failing lane keeps its last values this long, then its series disappear", minimum=0.0
    )

    def __post_init__(self) -> None:
        """As that of `RedisConfig`."""
        if isinstance(self.url, str):
            object.__setattr__(self, "url", parse_redis_url(self.url, "ledger.url"))


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """[postgres]: the gateway's database, as a source of the domain lane, a fallback, a shadow and a seed."""

    dsn: Secret | None = setting(None, "libpq connection string", flag=False)
    dsn_file: Path | None = setting(None, "file that holds the connection string")
    interval_seconds: float = setting(60.0, "how often one of the exporters reads the database", minimum=1.0)
    statement_timeout_seconds: float = setting(60.0, "limit for one statement", minimum=0.1)
    parity: str = setting("corrected", "corrected, or legacy for the numbers of the gateway's own exporter")
    use_snapshot_tables: bool = setting(
        False, "read the tables in which the gateway keeps its legacy numbers, instead of counting"
    )


@dataclass(frozen=True, slots=True)
class FollowConfig:
    """[follow]: the follower, which keeps a second ledger equal to the rows of the gateway's database ([postgres])."""

    enabled: bool = setting(False, "run the follower as a lane of `serve`")
    redis_url: RedisUrl | str | None = setting(None, "Redis of the follower's ledger, if it is not the ledger's own")
    namespace: str = setting("oq-db", "first part of the keys of the follower's ledger")
    look_seconds: float = setting(15.0, "how often the follower reads the rows that changed", minimum=0.1)
    sweep_seconds: float = setting(3600.0, "how often the follower compares all tracked rows", minimum=1.0)
    old_seconds: float = setting(
        3600.0, "rows that have been in flight longer than this are not read at every look", minimum=0.0
    )
    old_every: int = setting(20, "but at one look of this many", minimum=1)
    overlap_seconds: float = setting(
        60.0, "how far each look reads back where the role may not see open transactions", minimum=0.0
    )
    slice_rows: int = setting(50_000, "rows of one slice of a first fill and of a sweep", minimum=1)

    def __post_init__(self) -> None:
        """As that of `RedisConfig`."""
        if isinstance(self.redis_url, str):
            object.__setattr__(self, "redis_url", parse_redis_url(self.redis_url, "follow.redis_url"))


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """[server]: the HTTP side."""

    listen: str = setting("127.0.0.1:9464", "host:port to listen on; loopback unless you say so", name="listen")
    web_config_file: Path | None = setting(
        None, "TLS and basic auth, in the form that Prometheus exporters use", name="web_config"
    )
    scrape_budget_seconds: float = setting(
        8.0, "a scrape answers within this time, with what is known by then", minimum=0.1
    )


@dataclass(frozen=True, slots=True)
class OtlpConfig:
    """[otlp]: push. Endpoint, protocol, headers, interval and so on are OpenTelemetry's own variables."""

    enabled: bool | None = setting(None, "push OTLP; unset means: as OpenTelemetry's own variables say")
    shutdown_timeout_seconds: float = setting(5.0, "limit for the last push at shutdown", minimum=0.1)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings. `metrics` says for single domain metrics what `domain` says for all.

    `attributes` narrows a metric's attribute keys: the rest are dropped by its View. `opentelemetry` and `remarks` come
    from the environment alone: one that is made by hand pushes to nobody.
    """

    redis: RedisConfig = RedisConfig()
    queue: QueueConfig = QueueConfig()
    domain: DomainConfig = DomainConfig()
    ledger: LedgerConfig = LedgerConfig()
    postgres: PostgresConfig = PostgresConfig()
    follow: FollowConfig = FollowConfig()
    server: ServerConfig = ServerConfig()
    otlp: OtlpConfig = OtlpConfig()
    metrics: Mapping[str, MetricConfig] = field(default_factory=dict)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    opentelemetry: OpenTelemetryConfig = OpenTelemetryConfig()
    remarks: tuple[Remark, ...] = ()

    @property
    def pushes(self) -> bool:
        """Whether to push OTLP: as configured, else as OpenTelemetry's own variables say."""
        return self.opentelemetry.asks_for_push if self.otlp.enabled is None else self.otlp.enabled

    @property
    def remarks_of_serve(self) -> tuple[Remark, ...]:
        """`remarks`, and what `serve` does otherwise than the variables say."""
        preferred = self.opentelemetry.temporality
        if not self.pushes or preferred == "cumulative":
            return self.remarks
        advice = "its counters are totals of Redis and the ledger, never deltas; only workers have a choice"
        return (*self.remarks, Remark(TEMPORALITY, f"serve stays cumulative, and this is {preferred}", advice))

    @property
    def ledger_redis(self) -> RedisConfig:
        """Where the ledger is: `ledger.url` with its own credentials, else with the queues."""
        if self.ledger.url is None:
            return self.redis
        return replace(self.redis, url=self.ledger.url, username=None, password=None)

    @property
    def followed(self) -> "Config":
        """The same settings with the follower's ledger in the place of the ledger, for whatever is made from them.

        Nothing in it ends by age: its days end when their partitions are gone.
        """
        url = self.follow.redis_url or self.ledger.url
        return replace(self, ledger=replace(self.ledger, url=url, namespace=self.follow.namespace, retention_days=0))

    @property
    def shard(self) -> Shard:
        """The part of the projects that this exporter takes; raises ValueError."""
        return parse_shard(self.domain.shard)

    def sources_of(self, metric: str) -> Sources:
        """Where a domain metric comes from. A counter has no fallback: another one's count is not its own."""
        own = self.metrics.get(metric, MetricConfig())
        source, fallback, shadow = (
            None if chosen == NONE else chosen
            for chosen in (
                own.source or self.domain.source,
                own.fallback or self.domain.fallback,
                own.shadow or self.domain.shadow,
            )
        )
        if source is None:
            return Sources(None, None, None)
        is_counter = CATALOG[metric].kind == "counter"
        return Sources(
            source,
            None if is_counter or fallback == source else fallback,
            None if shadow == source else shadow,
        )

    def reads(self, source: str) -> bool:
        """Whether any domain metric comes from `source`, may fall back to it, or is compared with it."""
        return any(source in self.sources_of(metric) for metric in DOMAIN_METRICS)


SECTIONS: Final[Mapping[str, type]] = {
    "redis": RedisConfig,
    "queue": QueueConfig,
    "domain": DomainConfig,
    "ledger": LedgerConfig,
    "postgres": PostgresConfig,
    "follow": FollowConfig,
    "server": ServerConfig,
    "otlp": OtlpConfig,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as file, environment and command line know it."""

    section: str
    field: Field[Any]

    @property
    def path(self) -> str:
        """Its place in the file, e.g. redis.url."""
        return f"{self.section}.{self.field.name}"

    @property
    def _name(self) -> str:
        return self.field.metadata["name"] or f"{self.section}_{self.field.name}"

    @property
    def variable(self) -> str:
        """Its environment variable, e.g. OTEL_QUEUE_REDIS_URL."""
        return ENVIRONMENT_PREFIX + self._name.upper()

    @property
    def flag(self) -> str | None:
        """Its flag, e.g. --redis-url; None for secrets, which do not belong on a command line."""
        return "--" + self._name.replace("_", "-") if self.field.metadata["flag"] else None

    @property
    def help(self) -> str:
        """One line."""
        text: str = self.field.metadata["help"]
        return text


def all_settings() -> tuple[Setting, ...]:
    """Every setting, section by section, in the order of the dataclasses."""
    return tuple(Setting(section, item) for section, kind in SECTIONS.items() for item in fields(kind))
