"""The Dockerfile: read by BuildKit, and its steps run here, where there is no container engine."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_queue.version import __version__
from tests.deploy.checks import DEPLOY, check
from tests.go_program import ROOT
from tests.requirements_gate import Needs, missing
from tests.servers.process import ServerProcess, free_port, temporary_directory, wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server

DOCKERFILE = DEPLOY / "Dockerfile"
# A build fetches the build backend and the dependencies.
pytestmark = pytest.mark.timeout(600)
_UNREACHABLE = re.compile(
    r"Failed to establish a new connection|Temporary failure in name resolution|NewConnectionError"
)


def become(user: str) -> list[str]:
    """What runs a command as `uid:gid` with no privilege. Root may become anybody; anybody else is not root already."""
    uid, _, gid = user.partition(":")
    words = ["setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"]
    return words if os.geteuid() == 0 else []


def python_for(user: str) -> str:
    """A Python that the user can run: the tests' own may lie in root's home."""
    asked = ("-c", "import ensurepip, sys, venv; print(sys.version, sys.version_info >= (3, 11))")
    for program in (sys.executable, "/usr/bin/python3"):
        own, theirs = (
            subprocess.run([*words, program, *asked], capture_output=True, text=True, cwd="/")
            for words in ((), become(user))
        )
        # Compared, since one that does not find its own library takes the system's.
        if own.stdout.endswith("True\n") and own.stdout == theirs.stdout:
            return program
    return missing(Needs.SYSTEM_PYTHON, "no Python 3.11 with venv that another user than root can run")


@pytest.fixture(scope="module")
def image() -> dict[str, Any]:
    """What BuildKit makes of the Dockerfile: the image's configuration, and the commands that are run."""
    report = check("dockerfile", str(DOCKERFILE))
    assert report.faults == []
    found: dict[str, Any] = report.found
    return found


class Installed:
    """/opt/otel-queue of the image, elsewhere: in a folder that all may read and only its owner may write."""

    def __init__(self, place: Path, config: Mapping[str, Any]) -> None:
        self.place = place
        self.port = free_port()
        self._config = config
        # The image's variables and no others: no HOME, no variable of this machine.
        own = dict(item.split("=", 1) for item in config["Env"])
        self.environment = {**own, "PATH": f"{place}/bin:/usr/bin:/bin"}

    def command(self, *words: str) -> list[str]:
        """As the image's user."""
        return [*become(self._config["User"]), str(self.place / "bin" / words[0]), *words[1:]]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), env=self.environment, cwd="/", capture_output=True, text=True)

    def start_command(self, redis_url: str) -> list[str]:
        """ENTRYPOINT and CMD, on a free port of loopback."""
        words = [*self._config["Entrypoint"], *self._config["Cmd"]]
        assert words.count("0.0.0.0:9464") == 1
        words[words.index("0.0.0.0:9464")] = f"127.0.0.1:{self.port}"
        return self.command(*words, "--redis-url", redis_url)

    def is_healthy(self) -> bool:
        """What the image's HEALTHCHECK says."""
        kind, *words = self._config["Healthcheck"]["Test"]
        assert kind == "CMD"
        assert "9464" in words[-1]
        words[-1] = words[-1].replace("9464", str(self.port))
        return self.run(*words).returncode == 0


@pytest.fixture(scope="module")
def installed(image: dict[str, Any]) -> Iterator[Installed]:
    """What the Dockerfile's RUN lines make of the files that its ignore file lets through."""
    with temporary_directory() as directory:
        directory.chmod(0o755)
        source, wheels, place = directory / "source", directory / "wheels", directory / "otel-queue"
        tools = directory / "tools"  # `python` with pip, as in the base image
        subprocess.run([python_for(image["config"]["User"]), "-m", "venv", tools], check=True, capture_output=True)
        for name in check("context", str(ROOT), f"{DOCKERFILE}.dockerignore").found:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment = own | {"EXTRAS": "postgres", "PATH": f"{tools}/bin:{os.environ['PATH']}"}
        for words in image["runs"]:
            shell = [word.replace("/wheels", str(wheels)).replace("/opt/otel-queue", str(place)) for word in words]
            done = subprocess.run(shell, cwd=source, env=environment, capture_output=True, text=True)
            if done.returncode and _UNREACHABLE.search(done.stdout + done.stderr):
                missing(Needs.PACKAGE_INDEX, "the packages that the image is made of cannot be had")
            assert done.returncode == 0, done.stdout + done.stderr
        yield Installed(place, image["config"])


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with new_redis_server() as server:
        yield server


@pytest.fixture
def serving(installed: Installed, own_redis: RedisServer) -> Iterator[ServerProcess]:
    """The image's process."""
    with temporary_directory() as directory:
        process = ServerProcess(
            "image",
            installed.start_command(own_redis.url),
            is_ready=installed.is_healthy,
            directory=directory,
            environment=installed.environment,
        )
        try:
            process.start()
            yield process
        finally:
            process.stop()


def test_the_image_runs_as_a_number_that_is_not_root(image: dict[str, Any]) -> None:
    user, group = image["config"]["User"].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_no_shell_stands_between_the_engine_and_the_process(image: dict[str, Any]) -> None:
    assert image["config"]["Entrypoint"] == ["otel-queue"]
    assert image["config"]["Cmd"] == ["serve", "--listen", "0.0.0.0:9464"]
    assert list(image["config"]["ExposedPorts"]) == ["9464/tcp"]


def test_the_image_says_which_version_it_is(image: dict[str, Any]) -> None:
    assert image["config"]["Labels"]["org.opencontainers.image.version"] == __version__


def test_the_minor_version_of_python_is_pinned_to_one_that_is_supported() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    [pinned] = re.findall(r"^ARG PYTHON=(\d+\.\d+)$", text, re.MULTILINE)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"python:${PYTHON}-slim-bookworm"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"Programming Language :: Python :: {pinned}" in project["classifiers"]


def test_buildkits_linter_is_heard(tmp_path: Path) -> None:
    broken = tmp_path / "Dockerfile"
    broken.write_text(
        DOCKERFILE.read_text(encoding="utf-8").replace('ENTRYPOINT ["otel-queue"]', "ENTRYPOINT otel-queue")
    )
    [fault] = check("dockerfile", str(broken)).faults
    assert fault.startswith("JSONArgsRecommended")


def test_only_what_the_wheel_is_built_of_goes_to_the_builder(tmp_path: Path) -> None:
    for name in (
        ".git/config",
        "otel_queue/cli/__pycache__/a.pyc",
        "secrets/a",
        "tests/a.py",
        "pyproject.toml",
        ".env",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert check("context", str(tmp_path), f"{DOCKERFILE}.dockerignore").found == ["pyproject.toml"]
    sent = check("context", str(ROOT), f"{DOCKERFILE}.dockerignore").found
    assert {name.split("/")[0] for name in sent} == {"LICENSE", "README.md", "pyproject.toml", "otel_queue"}


def test_what_is_installed_is_the_wheel_and_its_extra_and_no_tool(installed: Installed) -> None:
    assert installed.run("otel-queue", "--version").stdout == f"otel-queue {__version__}\n"
    asked = "import importlib.util as u; print(*[n for n in ('psycopg', 'pip', 'pytest', 'tests') if u.find_spec(n)])"
    assert installed.run("python", "-I", "-c", asked).stdout == "psycopg\n"


def test_the_image_is_healthy_while_it_serves_whether_redis_answers_or_not(
    installed: Installed, serving: ServerProcess, own_redis: RedisServer
) -> None:
    assert installed.is_healthy()
    own_redis.kill()
    assert installed.is_healthy()
    serving.kill()
    assert not installed.is_healthy()


def test_the_image_is_not_healthy_when_it_hangs(installed: Installed, serving: ServerProcess) -> None:
    serving.pause()
    assert not installed.is_healthy()
    serving.resume()
    wait_until(installed.is_healthy, what="it answers again")


def test_the_process_ends_in_order_when_the_engine_asks_it_to(serving: ServerProcess) -> None:
    serving.send_signal(signal.SIGTERM)
    assert serving.wait() == 0, serving.logs()


def test_the_unprivileged_process_writes_no_file(serving: ServerProcess, installed: Installed) -> None:
    written = [
        link
        for link in (os.readlink(each) for each in Path(f"/proc/{serving.pid}/fd").iterdir())
        if link.startswith("/") and not link.startswith("/dev/") and Path(link) != serving.log_file
    ]
    assert written == []
    if os.geteuid() == 0:
        assert Path(f"/proc/{serving.pid}").stat().st_uid == 65532
