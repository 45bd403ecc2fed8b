"""What the ledger should say, worked out from the rules in words, in the plainest way and from nothing of the project.

It keeps every record it is given and sums up at the end. Records are dictionaries: `kind` and what the hook knows. A
key that is absent was not told, None is NULL. Its clock is given; it does not clamp.
"""

import datetime
from collections import Counter
from typing import Any

Plain = dict[str, Any]
Families = dict[str, dict[tuple[str, ...], float]]

# Of two statuses with the same time the later one here stands.
RANKS = ["scheduled", "processing", "retry", "discarded", "failure", "success"]
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
DAY_SECONDS = 86_400

EVENTS = "convoy_event_queue_total"
EVENT_BACKLOG = "convoy_event_queue_backlog_seconds"
DELIVERIES = "convoy_event_delivery_queue_total"
DELIVERY_BACKLOG = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS = "convoy_event_delivery_attempts_total"


def ulid_milliseconds(text: str) -> int | None:
    """The time in a ULID, if the text is one of this century after 2015."""
    if len(text) != 26 or any(letter not in CROCKFORD for letter in text) or text[0] > "7":
        return None
    milliseconds = 0
    for letter in text[:10]:
        milliseconds = milliseconds * 32 + CROCKFORD.index(letter)
    first, last = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC).timestamp() * 1000 for year in (2016, 2100))
    return milliseconds if first <= milliseconds < last else None


def day_of(text: str) -> str | None:
    """The UTC day that an id tells; None for an id that tells none."""
    milliseconds = ulid_milliseconds(text)
    if milliseconds is None:
        return None
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=milliseconds)
    return f"{moment:%Y%m%d}"


def midnight_after(day: str) -> float:
    start = datetime.datetime.strptime(day + "+0000", "%Y%m%d%z")
    return start.timestamp() + DAY_SECONDS


def printable(text: str) -> str:
    letters = [
        "?" if ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) <= 0xDFFF else letter for letter in text
    ]
    return "".join(letters)[:256]


def value_of(record: Plain, field: str) -> str | None:
    """A label as it is kept, None if it was not told."""
    if field not in record:
        return None
    text = printable(record[field] or "")
    return "http" if field == "source" and text == "" else text


def three_digits(status: object) -> str:
    text = "" if status is None else str(status).lstrip()
    digits = text[:3]
    is_code = len(digits) == 3 and digits.isascii() and digits.isdigit() and digits[0] in "12345"
    return digits if is_code and not text[3:4].isdigit() else "none"


class Oracle:
    def __init__(self, now: float, *, track_days: int = 30, attempt_days: int = 7) -> None:
        self.now = now
        self.track_days = track_days
        self.attempt_days = attempt_days
        self.deliveries: dict[tuple[str, str], list[Plain]] = {}
        self.events: dict[tuple[str, str], list[Plain]] = {}
        self.attempts: dict[tuple[str, str], Plain] = {}
        self.descriptions: dict[str, list[Plain]] = {}
        self.closed: dict[str, str] = {}
        self.late: Counter[str] = Counter()

    def take(self, record: Plain) -> None:
        project, kind = record["project"], record["kind"]
        if kind == "project_described":
            self.descriptions.setdefault(project, []).append(record)
        elif kind == "day_expired":
            self.expire(project, record["day"])
        elif kind == "attempt_made":
            if self.is_over(record["attempt_id"], self.attempt_days):
                self.late["attempt"] += 1
            else:
                self.attempts.setdefault((project, record["attempt_id"]), record)
        elif kind == "event_created":
            if self.is_closed(project, record["event_id"]):
                self.late["event"] += 1
            else:
                self.events.setdefault((project, record["event_id"]), []).append(record)
        elif self.is_closed(project, record["delivery_id"]):
            self.late["delivery"] += 1
        else:
            self.deliveries.setdefault((project, record["delivery_id"]), []).append(record)

    def expire(self, project: str, through: str) -> None:
        self.closed[project] = max(through, self.closed.get(project, ""))
        for kept in (self.deliveries, self.events):
            for key in list(kept):
                day = day_of(key[1])
                if key[0] == project and day is not None and day <= through:
                    del kept[key]

    def is_over(self, text: str, days: int) -> bool:
        day = day_of(text)
        return day is not None and self.now > midnight_after(day) + days * DAY_SECONDS

    def is_closed(self, project: str, text: str) -> bool:
        day = day_of(text)
        return self.is_over(text, self.track_days) or (day is not None and day <= self.closed.get(project, ""))

    def families(self) -> Families:
        found: Families = {name: {} for name in (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)}

        def add(name: str, *labels: str) -> None:
            found[name][labels] = found[name].get(labels, 0) + 1

        def age(name: str, seconds: float, *labels: str) -> None:
            found[name][labels] = max(seconds, found[name].get(labels, 0.0))

        for (project, _), told in self.events.items():
            add(EVENTS, project, first_told(told, "source", created_first=False) or "unknown", "success")
        for (project, delivery_id), told in self.deliveries.items():
            endpoint, event_type, source = (
                "unknown" if value is None else value
                for value in (told_of(told, field) for field in ("endpoint", "event_type", "source"))
            )
            status = last_status(told)
            name, organisation_id, organisation = self.names(project)
            add(DELIVERIES, project, name, endpoint, status, event_type, source, organisation_id, organisation)
            waited = max(self.now - creation(told, delivery_id) / 1e6, 0.0) if status == "processing" else 0.0
            age(DELIVERY_BACKLOG, waited, project, endpoint, source)
            age(EVENT_BACKLOG, waited, project, source)
        for (project, _), record in self.attempts.items():
            told_endpoint = value_of(record, "endpoint")
            add(
                ATTEMPTS,
                project,
                "unknown" if told_endpoint is None else told_endpoint,
                "success" if record["succeeded"] else "failure",
                three_digits(record.get("http_status")),
            )
        return found

    def names(self, project: str) -> tuple[str, str, str]:
        """The names that were told last; of those told at the same time the greatest."""
        told = [
            (
                record["time_us"],
                tuple(
                    printable(record.get(field) or "")
                    for field in ("project_name", "organisation_id", "organisation_name")
                ),
            )
            for record in self.descriptions.get(project, [])
        ]
        name, organisation_id, organisation_name = max(told)[1] if told else ("", "", "")
        return name, organisation_id, organisation_name


def last_status(told: list[Plain]) -> str:
    """What was set or read last; where nothing was, what was created last."""
    last = max(
        told,
        key=lambda record: (
            record["kind"] != "delivery_created",
            record["time_us"],
            RANKS.index(record["status"].lower()),
        ),
    )
    return str(last["status"]).lower()


def first_told(told: list[Plain], field: str, *, created_first: bool = True) -> str | None:
    """What a created record says beats the rest, then the earliest record, then the smaller value."""
    candidates = []
    for record in told:
        value = value_of(record, field)
        if value is not None:
            is_created = created_first and record["kind"] == "delivery_created"
            candidates.append((0 if is_created else 1, record["time_us"], value.encode(), value))
    return min(candidates)[3] if candidates else None


def told_of(told: list[Plain], field: str) -> str | None:
    """What the row that was read last says, then the smaller value; where no row says it, what hooks say."""
    said = []
    for record in told:
        value = value_of(record, field)
        if record["kind"] == "delivery_read" and value is not None:
            said.append((-record["time_us"], value.encode(), value))
    return min(said)[2] if said else first_told(told, field)


def creation(told: list[Plain], delivery_id: str) -> int:
    """When a row says so, else a created record, else any record; else from the id, else the earliest record."""
    for kinds in (("delivery_read",), ("delivery_created",), ("delivery_created", "status_set")):
        said = [record["created_us"] for record in told if record["kind"] in kinds and "created_us" in record]
        if said:
            return int(min(said))
    milliseconds = ulid_milliseconds(delivery_id)
    if milliseconds is not None:
        return milliseconds * 1000
    return int(min(record["time_us"] for record in told))
