"""A proxy in a process of its own, which is cut for each line of its input.

    python -m tests.soak.proxy_process PORT

It writes its own port first, and `done` after each cut.
"""

import sys

from tests.servers.proxy import slow_proxy

DELAY_SECONDS = 0.002  # so that there are always replies on their way


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(target_port: str) -> None:
    with slow_proxy(int(target_port), DELAY_SECONDS) as proxy:
        say(str(proxy.port))
        for _ in sys.stdin:
            proxy.cut()
            proxy.restore()
            say("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
