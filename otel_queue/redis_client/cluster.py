"""A Redis Cluster as one link: slots, nodes, and what to do when either moves or dies."""

import contextlib
import time
from collections.abc import Sequence
from typing import Any, cast

import redis
from redis.cluster import ClusterNode, NodesManager
from redis.crc import key_slot

from otel_queue.errors import ReadError
from otel_queue.redis_client.node import NodeLink
from otel_queue.redis_client.reasons import CLIENT_ERRORS, as_read_error, reply_reason
from otel_queue.redis_client.requests import Answers, ErrorReply, Reply, Request


class ClusterLink:
    """A Redis Cluster: one round trip per node, after one more when slots have moved."""

    def __init__(self, nodes: Sequence[tuple[str, int]], options: dict[str, Any], name: str) -> None:
        self._startup = nodes
        # A cluster's client takes `ssl` instead of a connection class, and no database.
        self._options = {key: value for key, value in options.items() if key != "db"}
        self._options["require_full_coverage"] = False  # a slot that nobody serves costs its queues only
        if self._options.pop("connection_class", None) is not None:
            self._options["ssl"] = True
        self._name = name
        # Knows the slots. RedisCluster would also ask a node picked at random for COMMAND, which needs one more
        # permission, and may be the node that does not answer.
        self._cluster: NodesManager | None = None
        self._is_stale = False  # what is known of the slots may have changed
        self._links: dict[str, NodeLink] = {}
        self._failing: set[str] = set()  # nodes that could not be read last time; asked after the others

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; the answers come when all nodes have answered or failed.

        Threads that ask different nodes do not wait for one another.
        """
        results = self._exchange_once(requests, deadline)
        stale = [index for index, result in enumerate(results) if _moved(result)]
        if stale:
            self._is_stale = True
            again = self._exchange_once([requests[index] for index in stale], deadline)
            for index, result in zip(stale, again, strict=True):
                results[index] = result
        failures = [result for result in results if isinstance(result, ReadError)]
        if failures:
            self._is_stale = True  # a node may have failed over: ask the others
        if failures and len(failures) == len(results):
            raise failures[0]
        yield from results

    def _exchange_once(self, requests: Sequence[Request], deadline: float) -> list[list[Reply] | ReadError]:
        cluster = self._topology()
        by_node: dict[str, list[int]] = {}
        nodes: dict[str, ClusterNode] = {}
        results: list[list[Reply] | ReadError] = [ReadError("cluster_down", "no node serves the slot")] * len(requests)
        for index, item in enumerate(requests):
            try:
                node = cluster.get_node_from_slot(key_slot(item.key))
            except CLIENT_ERRORS as error:
                results[index] = as_read_error(self._name, error)
                continue
            nodes[node.name] = node
            by_node.setdefault(node.name, []).append(index)
        for name in sorted(by_node, key=self._failing.__contains__):
            indexes = by_node[name]
            link = self._link(cluster, nodes[name])
            # A node that does not answer may take half of what is left, so that the others are read.
            until = deadline if len(by_node) == 1 else (time.monotonic() + deadline) / 2
            try:
                parts = list(link.exchange([requests[index] for index in indexes], until))
                self._failing.discard(name)
            except ReadError as error:
                parts = [error] * len(indexes)
                self._failing.add(name)
            for index, part in zip(indexes, parts, strict=True):
                results[index] = part
        return results

    def place(self, key: bytes, /) -> str:
        """As PlacedLink: the node; all of the cluster while the slots are not known."""
        cluster = self._cluster
        if cluster is None:
            return self._name
        try:
            return cluster.get_node_from_slot(key_slot(key)).name
        except CLIENT_ERRORS:
            return self._name

    def _topology(self) -> NodesManager:
        known = self._cluster
        if known is not None and not self._is_stale:
            return known
        self._is_stale = False
        try:
            self._cluster = found = self._ask_for_topology(known)
        except CLIENT_ERRORS as error:
            self._is_stale = True
            raise as_read_error(self._name, error) from error
        if known is not None:
            known.close()
        return found

    def _ask_for_topology(self, known: NodesManager | None) -> NodesManager:
        """The slots, from a node that answered last time if there is one: no other is waited for then.

        Nodes that were found before are asked too, since those that were configured may all be gone.
        """
        places = dict.fromkeys([*self._startup, *((node.host, node.port) for node in _nodes(known))])
        nodes = [ClusterNode(host, port) for host, port in places]
        answering = [node for node in nodes if node.name not in self._failing]
        if answering and len(answering) < len(nodes):
            with contextlib.suppress(*CLIENT_ERRORS):
                return NodesManager(startup_nodes=answering, **self._options)
            nodes = [node for node in nodes if node not in answering]
        return NodesManager(startup_nodes=nodes, **self._options)

    def _link(self, cluster: NodesManager, node: ClusterNode) -> NodeLink:
        link = self._links.get(node.name)
        if link is None:
            cluster.create_redis_connections([node])
            pool = cast(redis.Redis, node.redis_connection).connection_pool
            made = NodeLink(pool, node.name, self._options["socket_connect_timeout"])
            link = self._links.setdefault(node.name, made)
        return link

    def close(self) -> None:
        """As RedisLink; what is known of the slots is forgotten too."""
        self._links = {}
        known, self._cluster = self._cluster, None
        if known is not None:
            known.close()


def _nodes(cluster: NodesManager | None) -> list[ClusterNode]:
    return [] if cluster is None else list(cluster.nodes_cache.values())


def _moved(result: list[Reply] | ReadError) -> bool:
    return not isinstance(result, ReadError) and any(
        isinstance(reply, ErrorReply) and reply_reason(reply) == "moved" for reply in result
    )
