"""What was there before a ledger tracked anything: deliveries that are not final, and attempts, each put in once."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final, NamedTuple

from otel_queue.ledger.contract import read_contract
from otel_queue.ledger.exchange import Exchange
from otel_queue.ledger.identity import UNDATED, identify
from otel_queue.ledger.keys import Keys
from otel_queue.redis_client import RedisLink, integer, request

_AT_ONCE: Final = 256
_OPEN_NODES: Final = 256


class OpenDelivery(NamedTuple):
    """A delivery that is not final: its rank, the time of that, and its group (`batches.delivery_group`)."""

    id: str
    rank: int
    status_us: int
    created_us: int
    group: str


class Untracked:
    """Each call may be repeated, and puts nothing twice. Raises ReadError and WriteError."""

    def __init__(self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 30.0) -> None:
        self._exchange = Exchange(link, timeout_seconds)
        self._keys = Keys(namespace)

    def clear_open(self, project: str) -> None:
        """Forgets which deliveries are open, so that they can be put anew: before anything else has told of them."""
        of = self._keys.project(project)
        nodes = [of.prefix + b":open:%d" % number for number in range(_OPEN_NODES)]
        self._exchange.one(request(of.meta, [("UNLINK", *nodes)]))

    def put_open(self, project: str, day: str, deliveries: Iterable[OpenDelivery]) -> int:
        """Makes deliveries with dated ids known under a settled day whose counts have them; how many were not yet."""
        of, put, remaining = self._keys.project(project), 0, iter(deliveries)
        while chunk := list(islice(remaining, _AT_ONCE)):
            words = [word for each in chunk for word in (identify(each.id).stored, *each[1:])]
            put += integer(self._exchange.call("put_open", (of.meta, of.groups), ("", day, *words)))
        return put

    def put_attempts(self, project: str, counts: Mapping[str, int]) -> None:
        """Adds attempts by their field (docs/ledger-protocol.md). The same counts are to be given in each try."""
        of = self._keys.project(project)
        contract = self._exchange.run(read_contract(self._keys), self._keys.contract).text()
        pairs = iter(sorted(counts.items()))
        part = 0
        while chunk := list(islice(pairs, _AT_ONCE)):
            part += 1
            words = (contract, UNDATED, part, *(word for pair in chunk for word in pair))
            self._exchange.call("put_attempts", (of.meta, of.groups, of.attempts, of.days), words)

    def close(self) -> None:
        """Ends the connections; a later call opens new ones."""
        self._exchange.close()
