"""A proxy in a process of its own, which does what each line of its input says.

    python -m tests.soak.proxy_process PORT

It writes its own port first, and `done` after each line. `cut`: all connections are closed, new ones pass. `gone`: they
are refused. `mute`: nothing passes. `back`: new connections pass again. `delay SECONDS`: each way takes that long.
"""

import sys

from tests.servers.proxy import Proxy, slow_proxy

DELAY_SECONDS = 0.002  # so that there are always replies on their way


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def obey(proxy: Proxy, command: str, argument: str) -> None:
    match command:
        case "cut":
            proxy.cut()
            proxy.restore()
        case "gone":
            proxy.cut()
        case "mute":
            proxy.blackhole()
        case "back":
            proxy.restore()
        case "delay":
            proxy.delay = float(argument)
        case _:
            raise ValueError(f"unknown command: {command}")


def main(target_port: str) -> None:
    with slow_proxy(int(target_port), DELAY_SECONDS) as proxy:
        say(str(proxy.port))
        for line in sys.stdin:
            command, _, argument = line.strip().partition(" ")
            obey(proxy, command, argument)
            say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
