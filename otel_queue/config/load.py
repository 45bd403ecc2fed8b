"""From argument, environment, file and default to one checked Config; all faults are reported together."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

from otel_queue.catalog import CATALOG
from otel_queue.config.checks import MOST_SECONDS, is_file
from otel_queue.config.opentelemetry import Remark, StandardVariables
from otel_queue.config.redis_url import parse_redis_url
from otel_queue.config.secret import Secret
from otel_queue.config.settings import (
    DOMAIN_METRICS,
    ENVIRONMENT_PREFIX,
    NONE,
    SECTIONS,
    SOURCES,
    Config,
    MetricConfig,
    Setting,
    all_settings,
)
from otel_queue.errors import ConfigError
from otel_queue.shard import parse_shard

CONFIG_FILE_VARIABLE: Final = "OTEL_QUEUE_CONFIG"
_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})


def load_config(
    arguments: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    *,
    defaults: Mapping[str, str] | None = None,
) -> Config:
    """The configuration in force.

    `arguments` maps a setting's path (redis.url) to its text; `environment` defaults to the process's. The
    file is `file`, else $OTEL_QUEUE_CONFIG, else none. `defaults` maps paths as `arguments` does and replaces
    the settings' own defaults. Raises ConfigError with every fault found.
    """
    environment = os.environ if environment is None else environment
    if file is None and (named := environment.get(CONFIG_FILE_VARIABLE)):
        file = Path(named)
    faults: list[str] = []
    tables = _read_file(file, faults) if file else {}
    chosen: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for item in all_settings():
        found = _find(item, arguments or {}, environment, tables, defaults or {})
        if found is None:
            continue
        origin, raw = found
        try:
            chosen[item.section][item.field.name] = _convert(item, raw)
        except ConfigError as error:
            faults.extend(error.faults)
        except ValueError as error:
            faults.append(f"{item.path} (from {origin}): {error}")
    domain = tables.get("domain", {})
    metrics = _metrics(domain.get("metrics", {}) if isinstance(domain, dict) else {}, faults)
    attributes = _attributes(tables.get("attributes", {}), faults)
    _read_secret_file(chosen["redis"], "redis.password", faults)
    _read_secret_file(chosen["postgres"], "postgres.dsn", faults)
    sections: dict[str, Any] = {section: kind(**chosen[section]) for section, kind in SECTIONS.items()}
    config = Config(**sections, metrics=metrics, attributes=attributes)
    has_urls = not any(fault.startswith(("redis.url:", "ledger.url:", "follow.redis_url:")) for fault in faults)
    places = (config.redis, config.ledger_redis, config.followed.ledger_redis)
    if has_urls and config.redis.tls_ca_file and not any(place.location.tls for place in places):
        faults.append("redis.tls_ca_file: no URL of a Redis uses TLS; use rediss://")
    faults.extend(_check(config))
    variables = StandardVariables(environment, faults)
    read, remarks = variables.read(config.otlp.enabled), (*_unknown(environment), *variables.remarks())
    config = replace(config, opentelemetry=read, remarks=remarks)
    if faults:
        raise ConfigError(faults)
    return config


def _unknown(environment: Mapping[str, str]) -> Iterator[Remark]:
    """The names that look like a setting's and are none, sorted."""
    known = {item.variable for item in all_settings()} | {CONFIG_FILE_VARIABLE}
    for name in sorted(environment):
        # Kubernetes makes OTEL_QUEUE_PORT... and OTEL_QUEUE_SERVICE_... for a service of our name.
        is_ours = name.startswith(ENVIRONMENT_PREFIX) and "_PORT" not in name and "_SERVICE" not in name
        if is_ours and name not in known:
            yield Remark(name, "no such setting", "unset it, or see `otel-queue serve --help` for the names")


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[v6]:port` or `:port` (loopback); raises ValueError."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port, as in 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _read_file(file: Path, faults: list[str]) -> Mapping[str, Any]:
    try:
        with file.open("rb") as stream:
            tables = tomllib.load(stream)
    except OSError as error:
        faults.append(f"{file}: cannot be read: {error.strerror}")
        return {}
    except (ValueError, RecursionError) as error:  # numbers and nesting that Python refuses are among them
        faults.append(f"{file}: not TOML: {error}")
        return {}
    known = {name: {item.name for item in fields(kind)} for name, kind in SECTIONS.items()}
    for section, table in tables.items():
        if section == "attributes":
            continue
        if section not in known:
            faults.append(f"{file}: unknown section [{section}]{_closest(section, [*known, 'attributes'])}")
        elif not isinstance(table, dict):
            faults.append(f"{file}: {section} must be a section, as in [{section}]")
        else:
            faults.extend(
                f"{file}: unknown setting {section}.{key}{_closest(key, known[section])}"
                for key in table
                if key not in known[section] and (section, key) != ("domain", "metrics")
            )
    return tables


def _closest(name: str, known: Any) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _find(
    item: Setting,
    arguments: Mapping[str, str],
    environment: Mapping[str, str],
    tables: Mapping[str, Any],
    defaults: Mapping[str, str],
) -> tuple[str, Any] | None:
    if item.path in arguments:
        return item.flag or item.path, arguments[item.path]
    if environment.get(item.variable):
        return item.variable, environment[item.variable]
    table = tables.get(item.section)
    if isinstance(table, dict) and item.field.name in table:
        return "file", table[item.field.name]
    if item.path in defaults:
        return "default", defaults[item.path]
    return None


def _convert(item: Setting, raw: Any) -> Any:
    """The value in the setting's own type; raises ValueError that does not repeat a secret."""
    kinds = str(item.field.type)
    value: Any
    if "bool" in kinds:
        value = _as_bool(raw)
    elif "int" in kinds or "float" in kinds:
        value = _as_number(raw, whole="int" in kinds)
        minimum = item.field.metadata["minimum"]
        if minimum is not None and not value >= minimum:  # a nan is no value
            raise ValueError(f"must be at least {minimum:g}, not {raw}")
        if item.field.name.endswith("_seconds") and value > MOST_SECONDS:
            raise ValueError(f"must be at most {MOST_SECONDS}, not {raw}")
    elif not isinstance(raw, str):
        raise ValueError(f"must be text, not {type(raw).__name__}")
    elif "RedisUrl" in kinds:
        value = parse_redis_url(raw, item.path)
    elif "Secret" in kinds:
        value = Secret(raw)
    elif "Path" in kinds:
        value = Path(raw)
    else:
        value = raw
    return value


def _as_bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    text = str(raw).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError(f"must be true or false, not {raw!r}")
    return text in _TRUE


def _as_number(raw: Any, *, whole: bool) -> float:
    try:
        if isinstance(raw, bool):
            raise ValueError
        number = float(raw)
        if not whole:
            return number
        if number != int(number):
            raise ValueError
        return int(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"must be a {'whole ' if whole else ''}number, not {raw!r}") from error


def _metrics(table: Any, faults: list[str]) -> Mapping[str, MetricConfig]:
    if not isinstance(table, dict):
        faults.append("domain.metrics: must be sections, as in [domain.metrics.convoy_event_queue_total]")
        return {}
    chosen: dict[str, MetricConfig] = {}
    known = {item.name for item in fields(MetricConfig)}
    for name, own in table.items():
        place = f"domain.metrics.{name}"
        if name not in DOMAIN_METRICS:
            faults.append(f"{place}: no such domain metric{_closest(name, DOMAIN_METRICS)}")
            continue
        if not isinstance(own, dict):
            faults.append(f"{place}: must be a section, as in [{place}]")
            continue
        found: dict[str, Any] = {}
        for key, raw in own.items():
            if key not in known:
                faults.append(f"{place}: unknown setting {key}{_closest(key, known)}")
            elif key in ("source", "fallback", "shadow"):
                if isinstance(raw, str) and raw:
                    found[key] = raw
                else:
                    kind = "empty" if raw == "" else type(raw).__name__
                    faults.append(f"{place}.{key}: must be one of {', '.join((*SOURCES, NONE))}, not {kind}")
            else:
                try:
                    found[key] = _as_number(raw, whole=False)
                    if not 0 <= found[key] < float("inf"):
                        raise ValueError(f"must be at least 0, not {raw}")
                except ValueError as error:
                    faults.append(f"{place}.{key}: {error}")
                    found.pop(key, None)
        chosen[name] = MetricConfig(**found)
    return chosen


def _attributes(table: Any, faults: list[str]) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(table, dict):
        faults.append("attributes: must be a section that maps a metric's name to a list of attribute keys")
        return {}
    chosen: dict[str, tuple[str, ...]] = {}
    for name, keys in table.items():
        row = CATALOG.get(name)
        if row is None:
            faults.append(f"attributes.{name}: no such metric{_closest(name, CATALOG)}")
        elif not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            faults.append(f"attributes.{name}: must be a list of attribute keys")
        elif foreign := [key for key in keys if key not in row.keys]:
            known = ", ".join(row.keys) or "none"
            faults.append(f"attributes.{name}: {', '.join(foreign)} not among its keys ({known})")
        else:
            chosen[name] = tuple(keys)
    return chosen


def _read_secret_file(chosen: dict[str, Any], secret: str, faults: list[str]) -> None:
    """Puts what is in the file of a secret in its place."""
    name = secret.partition(".")[2]
    path = chosen.get(f"{name}_file")
    if path is None:
        return
    if name in chosen:
        faults.append(f"{secret} and {secret}_file: set one of them")
        return
    try:
        chosen[name] = Secret(Path(path).read_text(encoding="utf-8").rstrip("\r\n"))
    except (OSError, ValueError) as error:  # not UTF-8, or no path at all
        faults.append(f"{secret}_file: {path} cannot be read: {error}")


def _check(config: Config) -> list[str]:
    """What each value allows but the whole does not."""
    faults: list[str] = []
    if config.postgres.parity not in ("corrected", "legacy"):
        faults.append(f"postgres.parity: must be corrected or legacy, not {config.postgres.parity!r}")
    for name in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
        path = getattr(config.redis, name)
        if path is not None and not is_file(path):
            faults.append(f"redis.{name}: {path} is not a file")
    if config.domain.labels not in ("full", "lean"):
        faults.append(f"domain.labels: must be full or lean, not {config.domain.labels!r}")
    try:
        parse_shard(config.domain.shard)
    except ValueError as error:
        faults.append(f"domain.shard: {error}")
    faults.extend(_check_sources(config))
    faults.extend(_check_staleness(config))
    faults.extend(_check_follower(config))
    try:
        parse_listen(config.server.listen)
    except ValueError as error:
        faults.append(f"server.listen: {error}")
    return faults


def _check_staleness(config: Config) -> list[str]:
    """Values that disappear before they are due again, though their lane is well."""
    interval, limits = config.queue.min_interval_seconds, {"queue": config.queue.max_staleness_seconds}
    if config.reads("ledger"):
        limits["ledger"] = config.ledger.max_staleness_seconds
    return [
        f"queue.min_interval_seconds: must be less than {section}.max_staleness_seconds, which is {most:g}, "
        f"not {interval:g}; raise that too, or series are gone before they are read again"
        for section, most in limits.items()
        if interval >= most
    ]


def _check_follower(config: Config) -> list[str]:
    """What a follower lacks, and a ledger that the workers would write too."""
    faults: list[str] = []
    if config.follow.namespace == config.ledger.namespace:
        faults.append(
            f"follow.namespace: {config.follow.namespace!r} is ledger.namespace, which workers write; "
            "choose another one, as in oq-db"
        )
    if config.follow.enabled and config.postgres.dsn is None:
        faults.append("postgres.dsn: is needed, since [follow] is enabled; set OTEL_QUEUE_POSTGRES_DSN or dsn_file")
    return faults


def _check_sources(config: Config) -> list[str]:
    """What is wrong with where metrics come from: one line for each mistake, however many metrics share it."""
    faults: list[str] = []
    places = [("domain", config.domain.source, config.domain.fallback, config.domain.shadow)]
    for name, own in config.metrics.items():
        if own.fallback not in (None, NONE) and CATALOG[name].kind == "counter":
            faults.append(f"domain.metrics.{name}.fallback: a counter has none; it is absent while its source fails")
        chosen = (own.source or config.domain.source, own.fallback or NONE, own.shadow or NONE)
        places.append((f"domain.metrics.{name}", *chosen))
    for place, source, fallback, shadow in places:
        for key, value in (("source", source), ("fallback", fallback), ("shadow", shadow)):
            if value not in (*SOURCES, NONE):
                faults.append(f"{place}.{key}: must be one of {', '.join((*SOURCES, NONE))}, not {value!r}")
            elif key != "source" and value != NONE and value == source:
                faults.append(f"{place}.{key}: is the source itself, {value}")
            elif key != "source" and value != NONE and source == NONE and not config.metrics:
                faults.append(f"{place}.{key}: is {value}, and there is no {place}.source")
    if not faults and config.reads("postgres") and config.postgres.dsn is None:
        faults.append("postgres.dsn: is needed, since [domain] names postgres; set OTEL_QUEUE_POSTGRES_DSN or dsn_file")
    return faults
