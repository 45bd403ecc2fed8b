"""What a server's keys hold, against the reference."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Final

from otel_queue.ledger.states import delivery_state, event_state
from tests.simulation.project import SETTLED, Delivery, Project, day_of
from tests.simulation.reference import Reference

Ask = Callable[..., Any]
_MARKS: Final = ("expired", "settled", "settling", "folded")


def assert_same_holdings(ask: Ask, reference: Reference) -> None:
    """All that counts, and each id with its state; `ask` is answered by the server."""
    keys: dict[str, dict[str, list[bytes]]] = defaultdict(lambda: defaultdict(list))
    for key in ask(b"KEYS", b"oq:{*"):
        project, _, rest = key.removeprefix(b"oq:{").partition(b"}:")
        keys[project.decode()][rest.decode().partition(":")[0]].append(key)
    there = {name for name, of in reference.projects.items() if of.contract}
    assert there == set(keys), (there, set(keys))
    for name in there:
        _assert_same_project(ask, name, keys[name], reference.projects[name])
    registered = ask(b"ZRANGE", b"oq:projects", b"0", b"-1", b"WITHSCORES")
    assert dict(zip(registered[::2], map(int, registered[1::2]), strict=True)) == {
        name.encode(): number for name, number in reference.announced.items()
    }


def _assert_same_project(ask: Ask, name: str, keys: dict[str, list[bytes]], of: Project) -> None:
    prefix = b"oq:{%s}:" % name.encode()
    meta = _pairs(ask(b"HGETALL", prefix + b"meta"))
    tallies = {field: int(count) for field, count in meta.items() if ":" in field}
    marks = {mark: meta[mark].decode() for mark in _MARKS if mark in meta}
    told = [meta.get(field, b"") for field in ("project_name", "organisation_id", "organisation_name")]
    _same(name, "contract", meta["contract"].decode(), of.contract)
    _same(name, "sequence", int(meta["sequence"]) if "sequence" in meta else None, of.sequence)
    _same(name, "marks", marks, of.marks)
    _same(name, "tallies", tallies, dict(of.tallies))
    _same(name, "names", (int(meta.get("described_at", 0)), tuple(told)), of.described)
    groups = ask(b"HGETALL", prefix + b"groups")
    numbered = dict(zip(groups[::2], groups[1::2], strict=True))
    _same(name, "groups", {k: int(v) for k, v in numbered.items() if not k.startswith(b"#")}, of.groups)
    _same(
        name,
        "numbers",
        {int(k[1:]): v for k, v in numbered.items() if k.startswith(b"#")},
        {v: k for k, v in of.groups.items()},
    )
    labels = _raw(ask, prefix + b"attempt-labels")
    numbers = {label: int(number) for label, number in labels if not label.startswith(b"#")}
    _same(name, "attempts' labels", numbers, of.attempt_labels)
    attempts = ask(b"HGETALL", prefix + b"attempts")
    _same(name, "attempts", dict(zip(attempts[::2], map(int, attempts[1::2]), strict=True)), dict(of.attempts))
    _assert_same_counts(ask, name, keys, of)
    _assert_same_ids(ask, name, keys, of)


def _assert_same_counts(ask: Ask, name: str, keys: dict[str, list[bytes]], of: Project) -> None:
    counts: dict[str, dict[tuple[int, str], int]] = {}
    for key in keys["counts"]:
        fields = _pairs(ask(b"HGETALL", key))
        counts[_last(key)] = {
            (int(field.partition(":")[0]), field.partition(":")[2]): int(count) for field, count in fields.items()
        }
    _same(name, "counts", counts, {day: dict(held) for day, held in of.counts.items() if held})
    assert all(count > 0 for held in counts.values() for count in held.values()), (name, counts)
    index = {_last(key): {_member(each) for each in ask(b"ZRANGE", key, b"0", b"-1")} for key in keys["processing"]}
    _same(name, "index", index, {day: held for day, held in of.index.items() if held})
    in_index = {
        (day, group): sum(each[0] == group for each in held) for day, held in index.items() for group, _, _ in held
    }
    counted = {
        (day, group): count for day, held in counts.items() for (group, kind), count in held.items() if kind == "2"
    }
    _same(name, "sums", in_index, counted)
    days = {day.decode() for day in ask(b"ZRANGE", b"oq:{%s}:days" % name.encode(), b"0", b"-1")}
    _same(name, "days", days - {"attempts"}, {*counts})


def _assert_same_ids(ask: Ask, name: str, keys: dict[str, list[bytes]], of: Project) -> None:
    settled = of.marks.get(SETTLED, "")
    deliveries: Counter[tuple[Any, ...]] = Counter()
    for key in keys["deliveries"]:
        day = key.decode().split(":")[3]
        if day > settled:
            deliveries.update((day, id_, *_state(day, id_, state)) for id_, state in _raw(ask, key))
    wanted = [(day, id_, *_state_of(held)) for (day, id_), held in of.deliveries.items() if day > settled]
    _same(name, "deliveries", deliveries, Counter(wanted))
    opened: Counter[tuple[Any, ...]] = Counter()
    for key in keys["open"]:
        for id_, state in _raw(ask, key):
            if _day_of_id(id_) <= settled:
                opened[(id_, *_state("", id_, state))] += 1
    kept = Counter((id_, *_state_of(held)) for id_, held in of.open.items() if held.day <= settled)
    _same(name, "open", opened, kept)
    events: Counter[tuple[Any, ...]] = Counter()
    for key in keys["events"]:
        day = key.decode().split(":")[3]
        if day > settled:
            events.update((day, id_, *event_state(day, id_, state)) for id_, state in _raw(ask, key))
    _same(
        name,
        "events",
        events,
        Counter((day, id_, held.group, held.at) for (day, id_), held in of.events.items() if day > settled),
    )
    attempts: Counter[tuple[Any, ...]] = Counter()
    for key in keys["attempt-ids"]:
        day = key.decode().split(":")[3]
        number = slice(2 if day == "undated" else 0, None)
        attempts.update((day, id_, int.from_bytes(state[number])) for id_, state in _raw(ask, key))
    held_attempts = Counter((day, id_, held.number) for (day, id_), held in of.attempt_ids.items())
    _same(name, "attempt ids", attempts, held_attempts)


def _state(day: str, id_: bytes, state: bytes) -> tuple[Any, ...]:
    found = delivery_state(day, id_, state)
    return found.rank, found.is_set, found.status_us, found.created_us, found.created_kind, found.group, found.labels_us


def _state_of(held: Delivery) -> tuple[Any, ...]:
    labels_at = next((at for kind, at in held.told if (kind, at) != (0, 0)), 0)
    return held.status, held.is_set, held.status_at, held.created, held.created_kind, held.group, labels_at


def _day_of_id(id_: bytes) -> str:
    return day_of(int.from_bytes(id_[:6], "big") // 1000)


def _raw(ask: Ask, key: bytes) -> list[tuple[bytes, bytes]]:
    flat = ask(b"HGETALL", key)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _member(member: bytes) -> tuple[int, int, bytes]:
    return int.from_bytes(member[:4], "big"), int.from_bytes(member[4:11], "big"), member[11:]


def _pairs(flat: list[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _last(key: bytes) -> str:
    return key.decode().rpartition(":")[2]


def _same(project: str, what: str, found: object, wanted: object) -> None:
    assert found == wanted, f"{project}: {what} are {found}, and should be {wanted}"
