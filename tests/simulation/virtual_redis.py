"""Redis servers whose time, memory and history belong to a schedule. Each is a database of one real Redis.

The ledger's scripts run for real, with four changes to their text: they read a time that the schedule sets, they note
when a key ends instead of telling Redis, and the nodes of a day are small, so that a few ids fill them.
"""

import hashlib
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any, Final

import hiredis

from otel_queue.ledger.scripts import script
from otel_queue.redis_client import ErrorReply, Reply, pack
from tests.simulation.project import NODE_ENTRIES

Words = tuple[bytes, ...]
Patch = tuple[str, str, str]
"""A change to a script: name of its file, text that is there, text that comes in its place."""

_CLOCK: Final = b"sim:now"
_ENDS: Final = b"sim:ends"
_CHANGED: Final = (
    ("redis.call('TIME')", "redis.call('HMGET', 'sim:now', 's', 'us')"),
    ("redis.call('EXPIREAT', node, ", "redis.call('ZADD', 'sim:ends', "),
    ("tracked_until + grace_days * 86400)", "tracked_until + grace_days * 86400, node)"),
    ("NODE_ENTRIES, FANOUTS = 128, {1, 16, 256, 4096}", f"NODE_ENTRIES, FANOUTS = {NODE_ENTRIES}, {{1, 2, 4, 8}}"),
)
# Sets the time, and takes away what has ended by then.
_TICK: Final = b"""
redis.call('HSET', 'sim:now', 's', ARGV[1], 'us', ARGV[2])
for _, key in ipairs(redis.call('ZRANGEBYSCORE', 'sim:ends', '-inf', ARGV[1])) do redis.call('DEL', key) end
redis.call('ZREMRANGEBYSCORE', 'sim:ends', '-inf', ARGV[1])
"""
_READS: Final = frozenset(b"GET HGET HMGET HGETALL HKEYS HLEN EXISTS ZCARD ZRANGE ZRANGEBYSCORE ZRANGEBYLEX".split())


class Scripts:
    """The ledger's scripts as a schedule runs them, with the patches of a planted bug."""

    def __init__(self, patches: Iterable[Patch] = ()) -> None:
        self.name_of: dict[bytes, str] = {}
        self.text_of: dict[str, bytes] = {}
        self._own: dict[str, bytes] = {}
        patches = list(patches)
        names = [
            path.name[:-4] for path in resources.files("otel_queue.ledger").iterdir() if path.name.endswith(".lua")
        ]
        for name in sorted(names):
            told = script(name)
            text = told.text.decode()
            for old, new in _CHANGED:
                text = text.replace(old, new)
            for part, old, new in patches:
                if _has_part(told.text, part):
                    assert old in text, f"{part}.lua does not have {old!r} any more"
                    text = text.replace(old, new)
            self.name_of[told.sha] = self.name_of[told.text] = name
            self.text_of[name] = text.encode()
            self._own[name] = hashlib.sha1(self.text_of[name], usedforsecurity=False).hexdigest().encode()
        assert b"'TIME'" not in b"".join(self.text_of.values())

    def call(self, name: str, rest: Sequence[bytes]) -> Words:
        """A call of the script as the real Redis takes it."""
        return (b"EVALSHA", self._own[name], *rest)


def _has_part(text: bytes, part: str) -> bool:
    return (resources.files("otel_queue.ledger") / f"{part}.lua").read_bytes() in text


@dataclass(frozen=True, slots=True)
class Write:
    """Something that a server was told and did not refuse: when, whether it was full, and the words.

    Of a script's call also its name, the project, ARGV, and what it answered.
    """

    now_us: int
    is_full: bool
    words: Words
    script: str = ""
    project: str = ""
    arguments: Words = ()
    reply: Reply = None


@dataclass(slots=True, eq=False)
class Server:
    """One database: what was written to it since it was empty, and what is wrong with it.

    `refusal` is what it answers to every write while it is set.
    """

    number: int
    history: str
    writes: list[Write] = field(default_factory=list)
    loaded: set[str] = field(default_factory=set)
    is_full: bool = False
    refusal: str = ""

    @property
    def name(self) -> str:
        return f"node-{self.number}"


class VirtualRedis:
    """The servers of one schedule. `trace` is fed with all that was asked and answered, `written` with each write."""

    def __init__(
        self,
        redis_port: int,
        servers: int,
        scripts: Scripts,
        trace: Callable[[bytes], None],
        written: Callable[[Server, Write], None],
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", redis_port), timeout=30.0)
        self._reader: Any = hiredis.Reader()
        self.scripts = scripts
        self._trace = trace
        self._written = written
        self._is_full = False
        self._histories = 0
        self.servers = [Server(number, self._new_history()) for number in range(servers)]
        self._ask([(b"CONFIG", b"SET", b"maxmemory", b"0"), (b"FLUSHALL",)])
        self._ask([(b"SCRIPT", b"LOAD", text) for text in (_TICK, *scripts.text_of.values())])

    def close(self) -> None:
        self._socket.close()

    def _new_history(self) -> str:
        self._histories += 1
        return f"{self._histories:040x}"

    def execute(self, server: Server, commands: Sequence[Words], now_us: int) -> list[Reply]:
        """The reply to each command, at that time by the server's clock."""
        answers: list[Reply] = []
        sent: list[tuple[int, Write]] = []
        for words in commands:
            translated, name, answer = self._translate(server, words, now_us)
            answers.append(answer)
            if translated is not None:
                sent.append((len(answers) - 1, _write(now_us, server.is_full, translated, name)))
        if sent:
            replies = self._run(server, [write.words for _, write in sent], now_us, server.is_full)
            for (index, write), reply in zip(sent, replies, strict=True):
                answers[index] = reply
                if write.words[0] not in _READS and not isinstance(reply, ErrorReply):
                    written = replace(write, reply=reply)
                    server.writes.append(written)
                    self._written(server, written)
        for words, answer in zip(commands, answers, strict=True):
            self._trace(repr((server.number, now_us, words, answer)).encode())
        return answers

    def _translate(self, server: Server, words: Words, now_us: int) -> tuple[Words | None, str | None, Reply]:
        """What the real Redis is to be asked and which script that is, or the answer without asking it."""
        match words:
            case (b"TIME",):
                return None, None, [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]
            case (b"INFO", b"replication"):
                return None, None, f"# Replication\r\nrole:master\r\nmaster_replid:{server.history}\r\n".encode()
            case (b"SCRIPT", b"LOAD", text):
                server.loaded.add(self.scripts.name_of[text])
                return None, None, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
            case (b"EVAL" | b"EVALSHA" as how, text_or_sha, *rest):
                name = self.scripts.name_of[text_or_sha]
                if how == b"EVALSHA" and name not in server.loaded:
                    return None, None, ErrorReply("NOSCRIPT No matching script.")
                if server.refusal:
                    return None, None, ErrorReply(server.refusal)
                server.loaded.add(name)
                return self.scripts.call(name, rest), name, None
        if server.refusal and words[0] not in _READS:
            return None, None, ErrorReply(server.refusal)
        return words, None, None

    def lose_tail(self, server: Server, writes: int) -> None:
        """The server lost its latest writes, and goes on from what was before them under another history."""
        kept = server.writes[: max(len(server.writes) - writes, 0)]
        server.writes, server.history, server.loaded = kept, self._new_history(), set()
        self._ask([(b"SELECT", b"%d" % server.number), (b"FLUSHDB",)])
        start = 0
        for end, write in enumerate(kept, start=1):
            following = kept[end] if end < len(kept) else None
            if following is None or (following.now_us, following.is_full) != (write.now_us, write.is_full):
                self._run(server, [each.words for each in kept[start:end]], write.now_us, write.is_full)
                start = end

    def look(self, server: Server, commands: Sequence[Words], now_us: int) -> list[Reply]:
        """The replies to reads of a test's own, which leave no trace."""
        return self._run(server, commands, now_us, False)

    def _run(self, server: Server, commands: Sequence[Words], now_us: int, is_full: bool) -> list[Reply]:
        before: list[Words] = []
        if self._is_full:
            before.append((b"CONFIG", b"SET", b"maxmemory", b"0"))
        before.append((b"SELECT", b"%d" % server.number))
        tick = hashlib.sha1(_TICK, usedforsecurity=False).hexdigest().encode()
        before.append((b"EVALSHA", tick, b"0", b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)))
        if is_full:
            before.append((b"CONFIG", b"SET", b"maxmemory", b"1"))
        self._is_full = is_full
        return self._ask([*before, *commands])[len(before) :]

    def _ask(self, commands: Sequence[Words]) -> list[Reply]:
        self._socket.sendall(b"".join(pack(*words) for words in commands))
        replies: list[Reply] = []
        while len(replies) < len(commands):
            reply = self._reader.gets()
            if reply is False:
                self._reader.feed(self._socket.recv(1 << 16))
            else:
                replies.append(reply)
        return replies


def _write(now_us: int, is_full: bool, words: Words, script: str | None) -> Write:
    if script is None:
        return Write(now_us, is_full, words)
    keys = int(words[2])
    return Write(now_us, is_full, words, script, project_of(words[3]), words[3 + keys :])


def commands_of(packed: bytes) -> list[Words]:
    """Packed commands, each as its words."""
    reader: Any = hiredis.Reader()
    reader.feed(packed)
    found: list[Words] = []
    while (words := reader.gets()) is not False:
        found.append(tuple(words))
    return found


def project_of(key: bytes) -> str:
    """The project that a key is of; "" for a key of the whole ledger."""
    found = re.match(rb"[^{]*\{([^}]*)\}", key)
    return found[1].decode() if found else ""
