"""The follower: who has the lease fills the ledger once, then looks, and sweeps between the looks."""

import contextlib
import logging
import time
from collections.abc import Callable
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

# A follower that died is replaced when its lease ends: so many looks later, and at least so many seconds.
_LEASE_LOOKS: Final = 4
_LEASE_SECONDS: Final = 30.0


class Follower:
    """Follows the database of a configuration. One of several works at a time; the others wait for its lease."""

    def __init__(self, config: Config, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        if config.postgres.dsn is None:
            raise ConfigError(["postgres.dsn is not set: it says which database is to be followed"])
        settings = config.follow
        self._settings = settings
        self._monotonic = monotonic
        self.database = Database(
            Dsn(config.postgres.dsn), statement_timeout_seconds=config.postgres.statement_timeout_seconds
        )
        self.target = Target(config)
        seconds = max(_LEASE_SECONDS, _LEASE_LOOKS * settings.look_seconds)
        self.lease = Lease(connect(config.followed.ledger_redis), settings.namespace, seconds)
        self._pace = Pace(old_us=round(settings.old_seconds * 1e6), overlap_us=round(settings.overlap_seconds * 1e6))
        self._forget()

    def _forget(self) -> None:
        """What another follower may have told meanwhile is not known."""
        self._look = Look(self.database, self.target, self._pace)
        self._looks = 0
        self._slices = Slices(self.database, self.target, self._settings.slice_rows)
        self._sweep: Sweep | None = None
        self._fill: Fill | None = None

    def take(self) -> Place | None:
        """The place to go on from, if the lease is ours; None while another follower has it."""
        was_held = self.lease.is_held
        place = self.lease.take()
        if place is not None and not was_held:
            self._forget()
            self.target.begin()
            self.target.begin_after(place.read_us)
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
        looked = self._look.run(place, whole=self._looks % self._settings.old_every == 0)
        self._looks += 1
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
        self._sweep.step()
        self.lease.keep()
        if self._sweep.is_over:
            self.target.tracked.mark_swept(self._sweep.until_us)
            self.target.settle()
        return self._sweep

    def close(self) -> None:
        """Ends the lease, unless another follower has it or Redis is gone, and the connections."""
        with contextlib.suppress(ReadError):
            self.lease.end()
        self.lease.close()
        self.target.close()
