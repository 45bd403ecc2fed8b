"""A Redis Cluster as one link: slots, nodes, and what to do when either moves or dies."""

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
        self._links: dict[str, NodeLink] = {}
        self._failing: set[str] = set()  # nodes that could not be read last time; asked after the others

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; the answers come when all nodes have answered or failed."""
        results = self._exchange_once(requests, deadline)
        stale = [index for index, result in enumerate(results) if _moved(result)]
        if stale:
            self.close()
            again = self._exchange_once([requests[index] for index in stale], deadline)
            for index, result in zip(stale, again, strict=True):
                results[index] = result
        failures = [result for result in results if isinstance(result, ReadError)]
        if failures:
            self.close()  # a node may have failed over: ask the others
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
            link = self._link(nodes[name])
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

    def _topology(self) -> NodesManager:
        if self._cluster is None:
            nodes = [ClusterNode(host, port) for host, port in self._startup]
            nodes.sort(key=lambda node: node.name in self._failing)
            try:
                self._cluster = NodesManager(startup_nodes=nodes, **self._options)
            except CLIENT_ERRORS as error:
                raise as_read_error(self._name, error) from error
        return self._cluster

    def _link(self, node: ClusterNode) -> NodeLink:
        if node.name not in self._links:
            assert self._cluster is not None
            self._cluster.create_redis_connections([node])
            pool = cast(redis.Redis, node.redis_connection).connection_pool
            self._links[node.name] = NodeLink(pool, node.name, self._options["socket_connect_timeout"])
        return self._links[node.name]

    def close(self) -> None:
        """As RedisLink; what is known of the slots is forgotten too."""
        self._links.clear()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def _moved(result: list[Reply] | ReadError) -> bool:
    return not isinstance(result, ReadError) and any(
        isinstance(reply, ErrorReply) and reply_reason(reply) == "moved" for reply in result
    )
