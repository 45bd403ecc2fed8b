"""The contract of a ledger: what its writers and readers agree on, as it stands in Redis."""

import re
from dataclasses import dataclass
from typing import Final

from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.identity import end_of
from otel_queue.ledger.keys import Keys
from otel_queue.redis_client import ErrorReply, Reading, reply_reason, request, text

PROTOCOL: Final = 2
"""The version of docs/ledger-protocol.md that this package speaks."""

FROM_THE_FIRST: Final = "00000000"
"""The day of a ledger's first rule."""

REFUSED: Final = "OQCONTRACT"
"""How a script's refusal begins; a blank and what the project has stand behind it."""

# A number of more digits is damaged, and too large for what is made of it.
_RULE: Final = re.compile(r"(\d{8}):(\d{1,16}):(\d{1,16}):(\d{1,16});", re.ASCII)
_TEXT: Final = re.compile(rf"{PROTOCOL};(\d{{1,16}});(\d{{1,16}});({FROM_THE_FIRST}:[\d:;]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for ids from a UTC day on: `track_days` for events and deliveries, `attempt_days` for attempt ids.

    `most_groups` is the hard cap on sets of labels that a project may have.
    """

    track_days: int = 30
    attempt_days: int = 7
    most_groups: int = 100_000
    from_day: str = FROM_THE_FIRST


@dataclass(frozen=True, slots=True)
class Contract:
    """When the ledger began, how far ahead of Redis a record's time may be (microseconds), and its rules by day.

    The day of an id picks its rule, so no day has two. Rules are added at the end, and none is changed.
    """

    birth_us: int
    max_skew_us: int = 5_000_000
    rules: tuple[Rule, ...] = (Rule(),)

    def rule_of(self, day: str) -> Rule:
        """The rule of a day, YYYYMMDD; that of `undated` is the last."""
        return next(rule for rule in reversed(self.rules) if rule.from_day <= day)

    def tracked_until(self, day: str) -> int:
        """The Unix second until which a day's deliveries and events are tracked: never less than an earlier day's."""
        rules = [rule for rule in self.rules if rule.from_day <= day]
        ends = [*(end_of(rule.from_day) - 86_400 for rule in rules[1:]), end_of(day)]
        return max(end + rule.track_days * 86_400 for rule, end in zip(rules, ends, strict=True))

    def text(self) -> bytes:
        """As it stands in Redis."""
        rules = "".join(
            f"{rule.from_day}:{rule.track_days}:{rule.attempt_days}:{rule.most_groups};" for rule in self.rules
        )
        return f"{PROTOCOL};{self.birth_us};{self.max_skew_us};{rules}".encode()


def read_contract(keys: Keys) -> Reading[Contract]:
    """The contract as it stands. Raises ReadError with reason `no_birth` where none does: such a ledger is unknown."""
    [told] = yield request(keys.contract, [("GET", keys.contract)])
    found = text(told)
    if found is None:
        [birth] = yield request(keys.first_birth, [("GET", keys.first_birth)])
        if birth is not None:
            raise ReadError("contract", other_protocol("1"))
        raise ReadError(
            "no_birth",
            f"{keys.contract.decode()} is missing: the ledger was never begun, or was lost; see docs/runbook.md",
        )
    return parse_contract(found)


def parse_contract(told: bytes) -> Contract:
    """The contract that stands in Redis; raises ReadError with reason `contract` for one that cannot be kept."""
    words = told.decode("utf-8", "replace")
    version = words.partition(";")[0]
    if version.isdecimal() and version != str(PROTOCOL):
        raise ReadError("contract", other_protocol(version))
    found = _TEXT.fullmatch(words)
    if found is not None:
        each = _RULE.findall(found[3])
        rules = tuple(Rule(int(track), int(attempts), int(groups), day) for day, track, attempts, groups in each)
        contract = Contract(int(found[1]), int(found[2]), rules)
        if contract.text() == told:
            return contract
    raise ReadError("contract", f"the ledger's contract cannot be read: {words[:120]!r}")


def refusal(reply: ErrorReply) -> WriteError:
    """Why Redis, or a script, refused a call."""
    code, _, held = str(reply).partition(" ")
    if code != REFUSED:
        return WriteError(reply_reason(reply), str(reply))
    version = held.partition(";")[0].strip()
    if not version:
        why = "the project has no contract: nothing was ever recorded for it, or its meta was lost"
    elif version == str(PROTOCOL):
        why = f"the project has another contract than this program: {held[:120]}"
    else:
        why = other_protocol(version)
    return WriteError("contract", why)


def other_protocol(version: str) -> str:
    """What to say of a ledger that another protocol has written."""
    return (
        f"this ledger is of protocol {version[:20]}, and this version of otel-queue speaks protocol {PROTOCOL}: use "
        "the version that wrote it, or begin a new one under another ledger.namespace with `otel-queue ledger init`"
    )
