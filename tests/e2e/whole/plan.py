"""What is driven while everything runs, and what it adds up to, in plain sums."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS, Families

ROUNDS: Final = 12
EVENTS_A_ROUND: Final = 20


class Names(NamedTuple):
    """A project and whose it is."""

    project: str
    organisation: str
    organisation_name: str


PROJECTS: Final = {
    "crm": Names("Customer relations", "retail", "Retail Ltd"),
    "pos": Names("Points of sale", "retail", "Retail Ltd"),
}
SOURCES: Final = (None, "S1", "S2")
EVENT_TYPES: Final = ("order.paid", "order.sent")


class Endpoint(NamedTuple):
    """What an endpoint does: its answers, one to each call, and what the handler says of their durations.

    Without answers a delivery to it is discarded. Where it `hangs`, the handler ends before its call has come back.
    """

    answers: tuple[str | None, ...] = ()
    attempt_seconds: float = 0.0
    end_to_end_seconds: float = 0.0
    hangs: bool = False


ENDPOINTS: Final = {
    "good": Endpoint(("200 OK",), 0.03, 0.2),
    "flaky": Endpoint(("503 Service Unavailable", "201 Created"), 0.3, 3.0),
    "dead": Endpoint((None,), 7.0),
    "paused": Endpoint(),
    "hanging": Endpoint(hangs=True),
}

# What else a worker tells each round. The source of what is refused is longer than a label may be.
LIMITED: Final = {"bucket": "ingest", "outcome": "deny"}
LIMITED_A_ROUND: Final = 2
REFUSED_SOURCE: Final = "s" * 300
REFUSED_SHOWN: Final = "s" * 256
REFUSED_A_ROUND: Final = 1

# The Go example: what its endpoints answer in turn, and the status that the delivery gets.
GO_PROJECT: Final = "shop"
GO_NAMES: Final = Names("Shop", "acme", "Acme Inc.")
GO_EVENT_TYPE: Final = "order.paid"
GO_TASKS_A_ROUND: Final = 8
GO_OUTCOMES: Final = (
    ("orders", "200 OK", "Success"),
    ("billing", "503 Service Unavailable", "Retry"),
    ("stock", None, "Failure"),
    ("archive", "not called", "Discarded"),
)


@dataclass(frozen=True, slots=True)
class Offer:
    """An event of a project, and the endpoints that it goes to."""

    project: str
    source: str | None
    event_type: str
    endpoints: tuple[str, ...]

    def words(self) -> dict[str, Any]:
        """As it travels to a worker."""
        return asdict(self)


def offers(round_number: int) -> list[Offer]:
    """The events of one round."""
    first = round_number * EVENTS_A_ROUND
    return [_offer(number) for number in range(first, first + EVENTS_A_ROUND)]


def _offer(number: int) -> Offer:
    project = tuple(PROJECTS)[number % 2]
    nth = number // 2
    besides = {2: "flaky", 4: "dead", 6: "paused"}.get(nth % 8)
    endpoints = ("good",) if besides is None else ("good", besides)
    if nth == 0:
        endpoints = (*endpoints, "hanging")
    return Offer(project, SOURCES[nth % 3], EVENT_TYPES[nth % 2], endpoints)


def all_offers(rounds: int = ROUNDS) -> list[Offer]:
    """The events of the first so many rounds."""
    return [offer for number in range(rounds) for offer in offers(number)]


def deliveries(rounds: int = ROUNDS) -> Iterator[tuple[Offer, str, Endpoint]]:
    """Each delivery of an event, to its endpoint by name."""
    for offer in all_offers(rounds):
        for name in offer.endpoints:
            yield offer, name, ENDPOINTS[name]


def last_status(endpoint: Endpoint) -> str:
    """What becomes of a delivery."""
    if endpoint.hangs:
        return "processing"
    if not endpoint.answers:
        return "discarded"
    return "success" if succeeds(endpoint.answers[-1]) else "failure"


def succeeds(answer: str | None) -> bool:
    return answer is not None and answer.startswith("2")


def driven(rounds: int = ROUNDS) -> Families:
    """Events, deliveries and attempts by labels, of the Python workers and the Go worker."""
    found: dict[str, Counter[tuple[str, ...]]] = {name: Counter() for name in (EVENTS, DELIVERIES, ATTEMPTS)}
    for offer in all_offers(rounds):
        found[EVENTS][offer.project, offer.source or "http", "success"] += 1
    for offer, name, endpoint in deliveries(rounds):
        names = PROJECTS[offer.project]
        found[DELIVERIES][
            offer.project, names.project, name, last_status(endpoint), offer.event_type, offer.source or "http",
            names.organisation, names.organisation_name,
        ] += 1  # fmt: skip
        for answer in endpoint.answers:
            outcome = "success" if succeeds(answer) else "failure"
            found[ATTEMPTS][offer.project, name, outcome, answer[:3] if answer else "none"] += 1
    turns = rounds * GO_TASKS_A_ROUND // len(GO_OUTCOMES)
    found[EVENTS][GO_PROJECT, "http", "success"] += turns * len(GO_OUTCOMES)
    for name, answer, status in GO_OUTCOMES:
        found[DELIVERIES][
            GO_PROJECT, GO_NAMES.project, name, status.lower(), GO_EVENT_TYPE, "http", GO_NAMES.organisation,
            GO_NAMES.organisation_name,
        ] += turns  # fmt: skip
        if answer != "not called":
            outcome = "success" if succeeds(answer) else "failure"
            found[ATTEMPTS][GO_PROJECT, name, outcome, answer[:3] if answer else "none"] += turns
    return {name: {labels: float(count) for labels, count in counts.items()} for name, counts in found.items()}
