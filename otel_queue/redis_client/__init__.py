"""The one way in which this package talks to Redis: many packed commands, one round trip.

redis-py connects, authenticates, speaks TLS and finds masters and cluster nodes. The exchange itself goes past its
command layer: requests are joined as bytes and the replies are parsed by hiredis in place, because the commands are
the same at every collection and a client object per command would cost most of the time.
"""

from otel_queue.redis_client.connections import connect
from otel_queue.redis_client.reasons import reply_reason
from otel_queue.redis_client.replies import (
    Fields,
    array,
    counted,
    counter,
    decimal,
    integer,
    names,
    scored,
    taking_apart,
    text,
    time_us,
    unexpected,
)
from otel_queue.redis_client.requests import (
    Answers,
    ErrorReply,
    PlacedLink,
    RedisLink,
    Reply,
    Request,
    ask,
    pack,
    request,
)
from otel_queue.redis_client.rounds import Reading, Rounds

__all__ = [
    "Answers", "ErrorReply", "Fields", "PlacedLink", "Reading", "RedisLink", "Reply", "Request", "Rounds", "array",
    "ask", "connect", "counted", "counter", "decimal", "integer", "names", "pack", "reply_reason", "request", "scored",
    "taking_apart", "text", "time_us", "unexpected",
]  # fmt: skip
