"""The flags that every command shares: one per setting."""

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from otel_queue.config import Config, load_config
from otel_queue.config.settings import all_settings


def add_settings(parser: argparse.ArgumentParser, sections: Iterable[str]) -> None:
    """Adds --config and a flag for each setting of the sections."""
    chosen = set(sections)
    group = parser.add_argument_group("settings", "each also as an environment variable and in the file")
    group.add_argument("--config", type=Path, metavar="FILE", help="TOML file [$OTEL_QUEUE_CONFIG]")
    for item in all_settings():
        if item.section in chosen and item.flag:
            default = item.field.default
            shown = (
                "" if default is None else f"; default {str(default).lower() if default in (True, False) else default}"
            )
            group.add_argument(
                item.flag,
                dest=item.path,
                metavar="VALUE",
                help=f"{item.help}{shown} [${item.variable}]".replace("%", "%%"),
            )


def settings_of(options: argparse.Namespace, defaults: Mapping[str, str] | None = None) -> Config:
    """The configuration that the options ask for; `defaults` are those of load_config. Raises ConfigError."""
    given = {item.path: value for item in all_settings() if (value := getattr(options, item.path, None)) is not None}
    return load_config(given, file=options.config, defaults=defaults)
