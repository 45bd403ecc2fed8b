"""Script calls to Redis and back: one exchange for any number of records."""

# A socket's host is encoded with it. A thread that imports it at the moment of a fork leaves the child without it.
import encodings.idna  # noqa: F401
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import reduce
from typing import Final, NamedTuple

from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.batches import Call, calls
from otel_queue.ledger.contract import other_protocol, read_contract
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.scripts import script
from otel_queue.lifecycle import Record
from otel_queue.redis_client import ErrorReply, RedisLink, Reply, Request, Rounds, pack, reply_reason

_NO_SCRIPT: Final = "NOSCRIPT"
# A project's contract is another one; without one behind it, the project has none yet.
_CONTRACT: Final = "OQCONTRACT "
# Records that travel together: Redis works on one share while the next one is made.
_SHARE: Final = 512
# The list of projects is everybody's: what is wrong with it is never of one project, as these reasons would say.
_OF_ALL: Final = {"wrong_type": "bad_value", "error_reply": "protocol"}


class Written(NamedTuple):
    """What became of records: changed something, were known already, came too late; `clamped` of them were ahead."""

    changed: int = 0
    unchanged: int = 0
    late: int = 0
    clamped: int = 0

    def plus(self, other: Sequence[int]) -> "Written":
        """The sums."""
        return Written(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class LedgerStore:
    """Writes lifecycle records. Writing the same records again is harmless, so any failure may be retried."""

    def __init__(self, link: RedisLink, *, namespace: str = "oq") -> None:
        self._link = link
        self.keys = Keys(namespace)

    def write(self, records: Iterable[Record], deadline: float, *, under_day: str | None = None) -> Written:
        """Writes all records by `deadline` (time.monotonic seconds), under the day that each id tells or `under_day`.

        Raises WriteError when any of them may not have been written, ValueError for an unknown status.
        """
        written = Written()
        remaining = calls(records, self.keys, under_day=under_day)
        share = _next_share(remaining)
        while share:
            # Registered every time, not cached: a set that was lost grows again.
            projects = sorted({call.project for call in share})
            with closing(self._exchange([*map(self._register, projects), *map(_evalsha, share)], deadline)) as answers:
                first = next(answers)
                # Redis is at work on the calls: the time to prepare the next ones.
                following = _next_share(remaining)
                replies = [first, *answers]
            self._raise_for_all(replies[: len(projects)])
            written = written.plus(self._settle(share, replies[len(projects) :], deadline))
            share = following
        return written

    def _settle(self, share: Sequence[Call], replies: list[Reply], deadline: float) -> Written:
        missing = [index for index, reply in enumerate(replies) if _is_missing_script(reply)]
        if missing:
            loaded = list(self._exchange([_load_and_eval(share[index]) for index in missing], deadline))
            for index, reply in zip(missing, loaded, strict=True):
                replies[index] = reply
        new = [index for index, reply in enumerate(replies) if _is_without_contract(reply)]
        if new:
            contract = self._contract(deadline)
            told = [share[index]._replace(arguments=(contract, *share[index].arguments[1:])) for index in new]
            again = list(self._exchange([_load_and_eval(call) for call in told], deadline))
            for index, reply in zip(new, again, strict=True):
                replies[index] = reply
        _raise_for(replies)
        counted = [reply for reply in replies if isinstance(reply, list)]
        return reduce(Written.plus, counted, Written())

    def _contract(self, deadline: float) -> bytes:
        """The ledger's contract, for projects that have none yet."""
        try:
            [contract] = Rounds(self._link, deadline, clock_key=self.keys.contract).run([read_contract(self.keys)])
        except ReadError as error:
            raise WriteError(error.reason, str(error)) from error
        return contract.text()

    def close(self) -> None:
        """Ends the connections; a later write opens new ones."""
        self._link.close()

    def _register(self, project: str) -> Request:
        return Request(self.keys.projects, pack("SADD", self.keys.projects, project), 1)

    def _raise_for_all(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            if isinstance(reply, ErrorReply):
                reason = reply_reason(reply)
                raise WriteError(_OF_ALL.get(reason, reason), f"{self.keys.projects.decode()}: {reply}")

    def _exchange(self, requests: Sequence[Request], deadline: float) -> Generator[Reply, None, None]:
        """The last reply to each request; all requests have been sent before the first of them.

        The link is held until it has ended, or is closed.
        """
        try:
            with closing(self._link.exchange(requests, deadline)) as answers:
                for answer in answers:
                    if isinstance(answer, ReadError):
                        raise answer
                    yield answer[-1]
        except ReadError as error:
            raise WriteError(error.reason, str(error)) from error
        except Exception as error:
            # Not the records' fault, which are encoded by now: they are to be kept.
            raise WriteError("internal", f"{type(error).__name__}: {error}") from error


def _next_share(remaining: Iterator[Call]) -> list[Call]:
    """The next calls, with `_SHARE` records or a few more; empty when there are none."""
    share: list[Call] = []
    records = 0
    for call in remaining:
        share.append(call)
        records += call.records
        if records >= _SHARE:
            break
    return share


def _raise_for(replies: Iterable[Reply]) -> None:
    for reply in replies:
        if isinstance(reply, ErrorReply):
            words = str(reply)
            if words.startswith(_CONTRACT):
                raise WriteError("contract", other_protocol(words.removeprefix(_CONTRACT).partition(";")[0]))
            raise WriteError(reply_reason(reply), words)


def _evalsha(call: Call) -> Request:
    sha = script(call.script).sha
    return Request(call.keys[0], pack("EVALSHA", sha, len(call.keys), *call.keys, *call.arguments), 1)


def _load_and_eval(call: Call) -> Request:
    load, again = pack("SCRIPT", "LOAD", script(call.script).text), _evalsha(call)
    return Request(again.key, load + again.packed, 2)


def _is_missing_script(reply: Reply) -> bool:
    return isinstance(reply, ErrorReply) and str(reply).startswith(_NO_SCRIPT)


def _is_without_contract(reply: Reply) -> bool:
    return isinstance(reply, ErrorReply) and str(reply).rstrip() == _CONTRACT.rstrip()
