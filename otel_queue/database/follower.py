"""The follower: who has the lease fills the ledger once, then looks, and sweeps between the looks."""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from otel_queue.config import Config
from otel_queue.database.fill import Fill
from otel_queue.database.look import Look, Looked, Pace
from otel_queue.database.place import Lease, Place
from otel_queue.database.retention import expire_dropped_days
from otel_queue.database.slices import Slices
from otel_queue.database.sweep import Sweep, Swept, new_sweep
from otel_queue.database.target import Target
from otel_queue.errors import ConfigError, ReadError
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.redis_client import connect

_log: Final = logging.getLogger(__name__)

# A follower that died is replaced when its lease ends: so many looks later, and later than any statement takes.
_LEASE_LOOKS: Final = 4
_LEASE_SECONDS: Final = 30.0
_LINE_SECONDS: Final = 10.0


@dataclass(slots=True)
class Turn:
    """What came of a turn. Without the lease another follower is at work. `swept` is a sweep that ended in it."""

    has_lease: bool
    looked: Looked | None = None
    swept: Swept | None = None
    failures: Counter[str] = field(default_factory=Counter)


class Follower:
    """Follows the database of a configuration. One of several works at a time; the others wait for its lease.

    `looks` counts the looks of this lease.
    """

    def __init__(self, config: Config, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        if config.postgres.dsn is None:
            raise ConfigError(["postgres.dsn is not set: it says which database is to be followed"])
        settings = config.follow
        self._settings = settings
        self._monotonic = monotonic
        self._said = monotonic()
        self.database = Database(
            Dsn(config.postgres.dsn), statement_timeout_seconds=config.postgres.statement_timeout_seconds
        )
        self._config = config
        self.target = Target(config)
        seconds = max(_LEASE_SECONDS + config.postgres.statement_timeout_seconds, _LEASE_LOOKS * settings.look_seconds)
        self.lease = Lease(connect(config.followed.ledger_redis), settings.namespace, seconds)
        self._pace = Pace(old_us=round(settings.old_seconds * 1e6), overlap_us=round(settings.overlap_seconds * 1e6))
        self._has_begun = False
        self._forget()

    def _forget(self) -> None:
        """What another follower may have told meanwhile is not known."""
        self._look = Look(self.database, self.target, self._pace)
        self.looks = 0
        self._is_swept = False
        self._sweep_began = 0.0
        self._slices = Slices(self.database, self.target, self._settings.slice_rows)
        self._sweep: Sweep | None = None
        self._fill: Fill | None = None

    def take(self) -> Place | None:
        """The place to go on from, if the lease is ours; None while another follower has it."""
        before = self.lease.token
        place = self.lease.take()
        # Another token: somebody else followed meanwhile, or Redis lost ours and perhaps more.
        self._has_begun = self._has_begun and self.lease.token == before
        if place is not None and not self._has_begun:
            self.target.close()
            self.target = Target(self._config)
            self.target.hold = self.lease.keep
            self._forget()
            self.target.begin()
            self.target.begin_after(place.read_us)
            self._has_begun = True
        return place

    def fill_step(self, place: Place) -> Fill:
        """The next step of the first fill, which is over when the place has no `filled_us` any more."""
        if self._fill is None:
            overlap_us = self._pace.overlap_us
            self._fill = Fill(self.database, self.target, self._slices, self._look.memory, overlap_us=overlap_us)
        self._fill.step(place)
        self.lease.keep(place)
        return self._fill

    def fill(self, place: Place) -> Fill:
        """All of the first fill that is left, without a pause."""
        while True:
            fill = self.fill_step(place)
            if place.filled_us is None:
                return fill

    def look(self, place: Place) -> Looked:
        """One look, and the place that it led to is kept."""
        looked = self._look.run(place, whole=self.looks % self._settings.old_every == 0)
        self.looks += 1
        expire_dropped_days(self.database, self.target, place, looked.layout)
        self.lease.keep(place)
        return looked

    def sweep(self) -> Swept:
        """A whole sweep, without a pause; see `sweep_step`."""
        while not self.sweep_step().is_over:
            pass
        assert self._sweep is not None
        return self._sweep.swept

    def sweep_step(self) -> Sweep:
        """Compares one more slice: of the sweep that goes on, or the first one of a new sweep."""
        if self._sweep is None or self._sweep.is_over:
            self._sweep = new_sweep(self.target, self._slices)
            self._sweep_began = self._monotonic()
        self._sweep.step()
        self.lease.keep()
        if self._sweep.is_over:
            self.target.ids.mark_swept(self._sweep.until_us)
            refused = self.target.settle()
            self._sweep.swept.failures.update(error.reason for error in refused.values())
        return self._sweep

    def turn(self, stop: threading.Event, *, until: float | None = None) -> Turn:
        """What is due now: what is left of the first fill, a look, and slices of a sweep up to `until` (monotonic).

        The first sweep of a lease is due at once: it finds what changed while nobody looked. Raises ReadError and
        WriteError; the next turn goes on from the place that was kept.
        """
        place = self.take()
        turn = Turn(has_lease=place is not None)
        if place is None:
            return turn
        fill: Fill | None = None
        while place.filled_us is not None:
            if stop.is_set():
                return turn
            fill = self.fill_step(place)
            self._say(f"first fill: {_words(fill.rows)}", is_last=place.filled_us is None)
        if fill is not None:
            turn.failures.update(fill.failures)
        turn.looked = self.look(place)
        turn.failures.update(turn.looked.failures)
        while not stop.is_set() and self._is_sweep_due() and (until is None or self._monotonic() < until):
            sweep = self.sweep_step()
            self._say(f"sweep: {_words(sweep.swept.rows)}", is_last=False)
            if sweep.is_over:
                turn.failures.update(sweep.swept.failures)
                turn.swept = sweep.swept
                self._is_swept = True
                _log.info("follow: sweep: %s; set right: %s", _words(sweep.swept.rows), _words(sweep.swept.repaired))
                break
        return turn

    def _is_sweep_due(self) -> bool:
        """Whether the sweep is behind its time; the next one begins when that is up."""
        now, sweep = self._monotonic(), self._sweep
        if sweep is None or not self._is_swept:
            return True
        elapsed = now - self._sweep_began
        share = 1.0 if sweep.is_over else (sweep.position_us - sweep.since_us) / max(sweep.until_us - sweep.since_us, 1)
        return elapsed >= share * self._settings.sweep_seconds

    def _say(self, words: str, *, is_last: bool) -> None:
        now = self._monotonic()
        if is_last or now - self._said >= _LINE_SECONDS:
            self._said = now
            _log.info("follow: %s", words)

    def close(self) -> None:
        """Ends the lease, unless another follower has it or Redis is gone, and the connections."""
        with contextlib.suppress(ReadError):
            self.lease.end()
        self.lease.close()
        self.target.close()


def _words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"
