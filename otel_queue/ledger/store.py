"""Script calls to Redis and back: one exchange for any number of records."""

# A socket's host is encoded with it. A thread that imports it at the moment of a fork leaves the child without it.
import encodings.idna  # noqa: F401
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import reduce
from itertools import islice
from typing import Final, NamedTuple

from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.batches import Call, calls
from otel_queue.ledger.contract import REFUSED, read_contract, refusal
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.scripts import call_of, is_unknown, loading
from otel_queue.lifecycle import Record
from otel_queue.redis_client import ErrorReply, PlacedLink, Reply, Request, Rounds

# Records that travel together: Redis works on one share while the next one is made.
_SHARE: Final = 512
# Redis refused a script call, perhaps because of what a project's keys hold: that is no outage for the others.
OF_ONE_PROJECT: Final = frozenset({"wrong_type", "error_reply", "contract"})


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

    def __init__(self, link: PlacedLink, *, namespace: str = "oq") -> None:
        self._link = link
        self.keys = Keys(namespace)

    def write(self, records: Iterable[Record], deadline: float, *, under_day: str | None = None) -> Written:
        """Writes all records by `deadline` (time.monotonic seconds), and tells readers of their projects.

        They are kept under the day that each id tells, or `under_day`. Raises WriteError when any of them may not have
        been written, or readers may not know of it; ValueError for an unknown status.
        """
        outcomes = self.write_each(records, deadline, under_day=under_day)
        for outcome in outcomes.values():
            if isinstance(outcome, WriteError):
                raise outcome
        self.announce(outcomes, deadline)
        return reduce(Written.plus, (each for each in outcomes.values() if isinstance(each, Written)), Written())

    def write_each(
        self, records: Iterable[Record], deadline: float, *, under_day: str | None = None
    ) -> dict[str, Written | WriteError]:
        """As `write`, but says what became of each project, and leaves it to the caller to announce them.

        An error says that some of the project's records may not have been written. It is no other project's.
        """
        outcomes: dict[str, Written | WriteError] = {}
        remaining = calls(records, self.keys, under_day=under_day)
        following = _next_share(remaining)
        while following:
            # What failed once is not waited for again.
            share = [call for call in following if not isinstance(outcomes.get(call.project), WriteError)]
            with closing(self._exchange(list(map(_evalsha, share)), deadline)) as answers:
                replies = [*islice(answers, 1)]
                # Redis is at work on the calls: the time to prepare the next ones.
                following = _next_share(remaining)
                replies += answers
            for call, reply in zip(share, self._loaded(share, replies, deadline), strict=True):
                outcomes[call.project] = _joined(outcomes.get(call.project, Written()), reply)
        return outcomes

    def announce(self, projects: Iterable[str], deadline: float) -> None:
        """Tells readers that the projects changed. Raises WriteError with the reason `registry`.

        To be called when their records were answered, never before: a cluster does not keep the order of what is sent.
        """
        names = sorted(projects)
        key = (self.keys.projects,)
        chunks = [Call("announce", "", key, tuple(names[at : at + _SHARE]), 0) for at in range(0, len(names), _SHARE)]
        replies = list(self._exchange(list(map(_evalsha, chunks)), deadline))
        for reply in self._loaded(chunks, replies, deadline):
            if isinstance(reply, Exception):
                raise WriteError("registry", f"{self.keys.projects.decode()}: {reply}") from reply

    def place(self, project: str) -> str:
        """Which server has the project, as far as is known."""
        return self._link.place(self.keys.project(project).meta)

    @property
    def registry_place(self) -> str:
        """Which server has the list of projects, as far as is known."""
        return self._link.place(self.keys.projects)

    def close(self) -> None:
        """Ends the connections; a later write opens new ones."""
        self._link.close()

    def _loaded(self, share: Sequence[Call], replies: list[Reply], deadline: float) -> list[Reply]:
        """The replies; a call whose server had lost its script is made again, with the script."""
        missing = [index for index, reply in enumerate(replies) if is_unknown(reply)]
        if missing:
            again = self._exchange([_load_and_eval(share[index]) for index in missing], deadline)
            for index, reply in zip(missing, again, strict=True):
                replies[index] = reply
        if new := [index for index, reply in enumerate(replies) if _is_without_contract(reply)]:
            told = [share[index] for index in new]
            for index, reply in zip(new, self._with_contract(told, deadline), strict=True):
                replies[index] = reply
        return replies

    def _with_contract(self, share: Sequence[Call], deadline: float) -> Iterable[Reply]:
        """The replies to calls for projects that have no contract yet, which bring the ledger's along."""
        try:
            [contract] = Rounds(self._link, deadline, clock_key=self.keys.contract).run([read_contract(self.keys)])
        except ReadError as error:
            return [_failure(error)] * len(share)
        told = [call._replace(arguments=(contract.text(), *call.arguments[1:])) for call in share]
        return list(self._exchange([_load_and_eval(call) for call in told], deadline))

    def _exchange(self, requests: Sequence[Request], deadline: float) -> Generator[Reply, None, None]:
        """The reply to each request, or why there is none; all have been sent before the first of them.

        The link is held until it has ended, or is closed.
        """
        if not requests:
            return
        answered = 0
        try:
            with closing(self._link.exchange(requests, deadline)) as answers:
                for answer in answers:
                    answered += 1
                    yield _failure(answer) if isinstance(answer, ReadError) else _last(answer)
            return
        except Exception as error:
            # Not the records' fault, which are encoded by now: they are to be kept.
            failure = _failure(error)
        for _ in requests[answered:]:
            yield failure


def _failure(error: Exception) -> WriteError:
    if isinstance(error, ReadError):
        failure = WriteError(error.reason, str(error))
    else:
        failure = WriteError("internal", f"{type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure


def _last(replies: Sequence[Reply]) -> Reply:
    """The last reply, unless the script could not be loaded before it."""
    return next((reply for reply in replies if isinstance(reply, ErrorReply)), replies[-1])


def _joined(outcome: Written | WriteError, reply: Reply) -> Written | WriteError:
    """What became of a project after one more of its calls."""
    if isinstance(outcome, WriteError) or isinstance(reply, WriteError):
        return outcome if isinstance(outcome, WriteError) else reply
    if isinstance(reply, ErrorReply):
        return refusal(reply)
    return outcome.plus(reply) if isinstance(reply, list) else outcome


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


def _evalsha(call: Call) -> Request:
    return call_of(call.script, call.keys, call.arguments)


def _load_and_eval(call: Call) -> Request:
    return loading(call.script, _evalsha(call))


def _is_without_contract(reply: Reply) -> bool:
    """The project has none yet, so that nothing stands behind the words."""
    return isinstance(reply, ErrorReply) and str(reply).strip() == REFUSED
