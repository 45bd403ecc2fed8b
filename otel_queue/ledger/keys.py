"""The ledger's keys. All keys of a project share the hash tag {project}; docs/ledger-protocol.md lists them."""

from typing import Final, NamedTuple

# Stand for days among a project's days.
SETTLED: Final = "settled"
ATTEMPTS: Final = "attempts"


class Keys:
    """Key names under one namespace."""

    def __init__(self, namespace: str = "oq") -> None:
        self._namespace = namespace

    @property
    def contract(self) -> bytes:
        """STRING: the ledger's contract, its birth in it; permanent. Without it the ledger is unknown."""
        return f"{self._namespace}:contract".encode()

    @property
    def first_birth(self) -> bytes:
        """STRING: the birth of a ledger of protocol 1; never written."""
        return f"{self._namespace}:birth".encode()

    @property
    def projects(self) -> bytes:
        """ZSET: the projects that have records, by the number of their last announcement; permanent."""
        return f"{self._namespace}:projects".encode()

    @property
    def swept(self) -> bytes:
        """STRING: when the last sweep of all rows began that has ended (Unix microseconds); permanent."""
        return f"{self._namespace}:swept".encode()

    def project(self, project: str) -> "ProjectKeys":
        """The keys of one project."""
        # Braces would end the hash tag early.
        tag = project.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return ProjectKeys(f"{self._namespace}:{{{tag}}}".encode())


class ProjectKeys(NamedTuple):
    """The keys of one project, each with its type and life."""

    prefix: bytes

    @property
    def meta(self) -> bytes:
        """HASH: contract, sequence, marks of days, counters, names; permanent."""
        return self.prefix + b":meta"

    @property
    def groups(self) -> bytes:
        """HASH: labels -> number, "#number" -> labels; permanent."""
        return self.prefix + b":groups"

    @property
    def days(self) -> bytes:
        """ZSET: days with counts, by the sequence number of their last change; permanent."""
        return self.prefix + b":days"

    @property
    def attempts(self) -> bytes:
        """HASH: endpoint, NUL, status, NUL, http_status_code -> attempts ever; permanent."""
        return self.prefix + b":attempts"

    @property
    def attempt_labels(self) -> bytes:
        """HASH: field of the attempts -> number, "#number" -> field; permanent."""
        return self.prefix + b":attempt-labels"

    def counts(self, day: str) -> bytes:
        """HASH: "number:status" or "number:e" -> count; until the day expires or is folded."""
        return self.prefix + b":counts:" + day.encode()

    def stored(self, day: str) -> bytes:
        """What a member of the days stands for: the counts, or for `ATTEMPTS` the attempts."""
        return self.attempts if day == ATTEMPTS else self.counts(day)

    def processing(self, day: str) -> bytes:
        """ZSET: number, creation time and id of the deliveries in processing; as the counts."""
        return self.prefix + b":processing:" + day.encode()

    def open(self, number: int) -> bytes:
        """HASH: deliveries of settled days that are not final, by the last byte of their ids; permanent."""
        return self.prefix + b":open:%d" % number

    @property
    def undated(self) -> bytes:
        """ZSET: ids that tell no day, by the day of their first sight; permanent."""
        return self.prefix + b":undated"

    def deliveries(self, day: str) -> bytes:
        """HASH: the first node of the day's tracked deliveries; TTL."""
        return self.prefix + b":deliveries:" + day.encode()

    def events(self, day: str) -> bytes:
        """HASH: the first node of the day's tracked events; TTL."""
        return self.prefix + b":events:" + day.encode()

    def attempt_ids(self, day: str) -> bytes:
        """HASH: the first node of the day's attempt ids; TTL."""
        return self.prefix + b":attempt-ids:" + day.encode()
