"""Why Redis could not be read, as one word from a bounded set, fit to be a metric's attribute.

auth, permission, connection, timeout, loading, readonly, no_replicas, cannot_save, busy_script, out_of_memory,
wrong_type, aborted, moved, cluster_down, master_down, not_supported, error_reply, protocol.
"""

from typing import Final

import hiredis
import redis
from redis.exceptions import NoPermissionError, RedisClusterException, SlotNotCoveredError
from redis.sentinel import MasterNotFoundError

from otel_queue.errors import ReadError

# What redis-py and hiredis raise. redis-py's cluster errors are no RedisError; hiredis raises TypeError for a map
# with a list for a key and MemoryError for an array of billions. A host that is no name is a UnicodeError.
CLIENT_ERRORS: Final = (
    redis.RedisError,
    RedisClusterException,
    OSError,
    hiredis.HiredisError,
    TypeError,
    MemoryError,
    UnicodeError,
)

_REASON_BY_PREFIX: Final = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "permission",
    "LOADING": "loading",
    "READONLY": "readonly",
    "NOREPLICAS": "no_replicas",
    "MISCONF": "cannot_save",
    "BUSY": "busy_script",
    "OOM": "out_of_memory",
    "WRONGTYPE": "wrong_type",
    "EXECABORT": "aborted",
    "MOVED": "moved",
    "ASK": "moved",
    "CLUSTERDOWN": "cluster_down",
    "TRYAGAIN": "cluster_down",
    "MASTERDOWN": "master_down",
}


def reply_reason(reply: Exception) -> str:
    """Why Redis refused a command, as one word from the bounded set."""
    text = str(reply)
    known = _REASON_BY_PREFIX.get(text.split(" ", 1)[0])
    if known:
        return known
    return "not_supported" if "unknown command" in text or "not allowed" in text else "error_reply"


def as_read_error(name: str, error: BaseException) -> ReadError:
    """A client's error as ours; `name` says which server, without credentials."""
    while isinstance(error, RedisClusterException) and (cause := error.__cause__ or error.__context__):
        error = cause  # why the last of the nodes could not be asked
    if isinstance(error, MasterNotFoundError):
        return _no_master(name, str(error))
    return ReadError(_reason(error), f"{name}: {str(error) or type(error).__name__}")


def _no_master(name: str, words: str) -> ReadError:
    """Only the causes: redis-py shows each Sentinel's client whole, in some versions with its password."""
    found, _, sentinels = words.partition(" : ")
    causes = sorted({each.rpartition("> - ")[2] for each in sentinels.split(", <redis.")} - {""})
    reason = "auth" if any("AuthenticationError" in cause for cause in causes) else "connection"
    return ReadError(reason, f"{name}: {found}{'; the Sentinels: ' if causes else ''}{', '.join(causes)}")


# redis-py's errors at connecting, when it has taken the prefix off Redis's words.
_REASON_BY_ERROR: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (SlotNotCoveredError, "cluster_down"),
    (redis.AuthenticationError, "auth"),
    (NoPermissionError, "permission"),
    (redis.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (redis.BusyLoadingError, "loading"),
    (redis.InvalidResponse, "protocol"),
    (hiredis.HiredisError, "protocol"),
    (TypeError, "protocol"),
    (MemoryError, "protocol"),
)


def _reason(error: BaseException) -> str:
    for kind, reason in _REASON_BY_ERROR:
        if isinstance(error, kind):
            return reason
    return reply_reason(error) if isinstance(error, redis.ResponseError) else "connection"
