"""What Redis says, word for word, and the one word that a metric's attribute has for it."""

import hiredis
import pytest
import redis
from redis.exceptions import NoPermissionError, RedisClusterException, SlotNotCoveredError
from redis.sentinel import MasterNotFoundError

from otel_queue.redis_client import reply_reason
from otel_queue.redis_client.reasons import as_read_error

SAID = {
    "NOAUTH Authentication required.": "auth",
    "WRONGPASS invalid username-password pair or user is disabled.": "auth",
    "NOPERM User reader has no permissions to run the 'llen' command": "permission",
    "LOADING Redis is loading the dataset in memory": "loading",
    "READONLY You can't write against a read only replica.": "readonly",
    "NOREPLICAS Not enough good replicas to write.": "no_replicas",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.": "cannot_save",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.": "busy_script",
    "OOM command not allowed when used memory > 'maxmemory'.": "out_of_memory",
    "WRONGTYPE Operation against a key holding the wrong kind of value": "wrong_type",
    "EXECABORT Transaction discarded because of previous errors.": "aborted",
    "MOVED 3999 127.0.0.1:6381": "moved",
    "ASK 3999 127.0.0.1:6381": "moved",
    "CLUSTERDOWN The cluster is down": "cluster_down",
    "TRYAGAIN Multiple keys request during rehashing of slot": "cluster_down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.": "master_down",
    "ERR unknown command 'MULTI', with args beginning with: ": "not_supported",
    "ERR command 'EXEC' is not allowed": "not_supported",
    "ERR syntax error": "error_reply",
    "NOSUCHWORD that a later Redis may say": "error_reply",
}
RAISED = {
    SlotNotCoveredError("slot 7 is not covered"): "cluster_down",
    redis.AuthenticationError("invalid username-password pair"): "auth",
    NoPermissionError("no permissions"): "permission",
    redis.TimeoutError("Timeout reading from socket"): "timeout",
    TimeoutError("the time is used up"): "timeout",
    redis.BusyLoadingError("loading"): "loading",
    redis.InvalidResponse("what is this"): "protocol",
    hiredis.ProtocolError("more replies than commands"): "protocol",
    TypeError("unhashable type: 'list'"): "protocol",
    MemoryError("an array of billions"): "protocol",
    redis.ResponseError("MASTERDOWN Link with MASTER is down"): "master_down",
    redis.ResponseError("ERR syntax error"): "error_reply",
    redis.ConnectionError("refused"): "connection",
    OSError("no route to host"): "connection",
    UnicodeError("label too long"): "connection",
}


@pytest.mark.parametrize(("words", "reason"), SAID.items(), ids=str)
def test_a_refusal_has_its_reason(words: str, reason: str) -> None:
    assert reply_reason(hiredis.ReplyError(words)) == reason


@pytest.mark.parametrize(("error", "reason"), RAISED.items(), ids=repr)
def test_a_clients_error_has_its_reason_and_says_which_server_and_why(error: Exception, reason: str) -> None:
    told = as_read_error("redis-1:6379", error)
    assert (told.reason, str(told)) == (reason, f"redis-1:6379: {error}")


def test_an_error_without_words_is_told_by_its_name() -> None:
    assert str(as_read_error("redis-1:6379", TimeoutError())) == "redis-1:6379: TimeoutError"


def test_a_cluster_that_cannot_be_asked_is_told_with_what_its_last_node_said() -> None:
    outer = RedisClusterException("no node can be asked")
    outer.__cause__ = inner = RedisClusterException("nor this one")
    inner.__context__ = redis.AuthenticationError("wrong password")
    assert as_read_error("cluster", outer).reason == "auth"
    assert str(as_read_error("cluster", outer)) == "cluster: wrong password"
    alone = as_read_error("cluster", RedisClusterException("no node can be asked"))
    assert (alone.reason, str(alone)) == ("connection", "cluster: no node can be asked")


@pytest.mark.parametrize(
    ("words", "reason", "shown"),
    [
        ("No master found for 'queues'", "connection", "No master found for 'queues'"),
        (
            "No master found for 'queues' : <redis.client.Redis(<...password=x...)> - TimeoutError('slow'), "
            "<redis.client.Redis(<...password=x...)> - ConnectionError('gone')",
            "connection",
            "No master found for 'queues'; the Sentinels: ConnectionError('gone'), TimeoutError('slow')",
        ),
        (
            "No master found for 'queues' : <redis.client.Redis(<...)> - AuthenticationError('no'), "
            "<redis.client.Redis(<...)> - AuthenticationError('no')",
            "auth",
            "No master found for 'queues'; the Sentinels: AuthenticationError('no')",
        ),
    ],
)
def test_sentinels_are_told_with_each_cause_once_and_without_their_clients(words: str, reason: str, shown: str) -> None:
    told = as_read_error("sentinels", MasterNotFoundError(words))
    assert (told.reason, str(told)) == (reason, f"sentinels: {shown}")
