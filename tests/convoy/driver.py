"""What a test does to a Convoy: events of every kind, failures, resends, pauses, and ends of the agent."""

import itertools
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

from tests.convoy.gateway import Convoy, RefusedError
from tests.convoy.receiver import Receiver
from tests.servers.process import wait_until

OWNER: Final = "owner-1"
# Three attempts, a second apart.
STRATEGY: Final = {"type": "linear", "duration": 1, "retry_count": 3}
SIGNATURE: Final = {"header": "X-Convoy-Signature", "versions": [{"hash": "SHA256", "encoding": "hex"}]}
# The name of an endpoint, and what the receiver answers there.
ENDPOINTS: Final = {
    "ok": "/ok",
    "after": "/after/1",
    "broken": "/broken",
    "no": "/no",
    "late": "/late/0.2",
    "paused": "/ok?paused",
    "inactive": "/ok?inactive",
    "gone": "/ok?gone",
}
# Convoy's queues that hold work of events; ScheduleQueue runs its cron jobs all the time.
QUEUES: Final = (
    "CreateEventQueue",
    "EventWorkflowQueue",
    "EventQueue",
    "RetryEventQueue",
    "BatchRetryQueue",
)
# Tasks of an agent that was killed come back when their leases have ended, and then wait for a retry.
REST_SECONDS: Final = 300.0


class Driver:
    """One outgoing project with an endpoint for each way to answer, one incoming project with a source."""

    def __init__(self, convoy: Convoy, receiver: Receiver) -> None:
        self._convoy = convoy
        self._receiver = receiver
        self._numbers = itertools.count(1)
        self._redis = convoy.redis.client()
        self.endpoints: dict[str, str] = {}
        self.outgoing = self.incoming = self._mask = ""

    def prepare(self) -> None:
        config = {"strategy": STRATEGY, "signature": SIGNATURE, "ratelimit": {"count": 100_000, "duration": 60}}
        self.outgoing = self._project("Outgoing", "outgoing", config)
        self.incoming = self._project("Incoming", "incoming", config)
        for name, path in ENDPOINTS.items():
            self.endpoints[name] = self._endpoint(self.outgoing, name, path, "*")
        verifier = {"type": "noop"}
        source = self._convoy.call(
            "POST",
            f"/projects/{self.incoming}/sources",
            {"name": "provider", "type": "http", "verifier": verifier, "idempotency_keys": ["request.body.key"]},
        )
        self._mask = source["mask_id"]
        self._endpoint(self.incoming, "ingested", "/ok?ingested", "*", source=source["uid"])
        # An agent that runs already refuses a new project's first tasks for a while.
        self.stop_agent(signal.SIGTERM)
        self._convoy.agent.start()

    def _project(self, name: str, kind: str, config: dict[str, Any]) -> str:
        body = {"name": name, "type": kind, "config": config}
        made = self._convoy.call("POST", f"/projects?orgID={self._convoy.organisation}", body)
        return str(made["project"]["uid"])

    def _endpoint(self, project: str, name: str, path: str, event_type: str, *, source: str = "") -> str:
        """With a subscription to all events of the type."""
        url = self._receiver.url(path)
        body = {"name": name, "url": url, "secret": "s", "owner_id": OWNER}
        endpoint = str(self._convoy.call("POST", f"/projects/{project}/endpoints", body)["uid"])
        subscription = {
            "name": name,
            "endpoint_id": endpoint,
            "source_id": source,
            "filter_config": {"event_types": [event_type]},
        }
        self._convoy.call("POST", f"/projects/{project}/subscriptions", subscription)
        return endpoint

    def _body(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"event_type": f"{kind}.made", "data": {"number": next(self._numbers)}, **more}

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._convoy.call("POST", f"/projects/{self.outgoing}/events{path}", body)

    def single(self, endpoint: str, count: int, **more: Any) -> None:
        for _ in range(count):
            self._post("", self._body("single", endpoint_id=self.endpoints[endpoint], **more))

    def fan_out(self, count: int, **more: Any) -> None:
        for _ in range(count):
            self._post("/fanout", self._body("fanout", owner_id=OWNER, **more))

    def broadcast(self, count: int, **more: Any) -> None:
        for _ in range(count):
            self._post("/broadcast", self._body("broadcast", **more))

    def dynamic(self, count: int) -> None:
        for _ in range(count):
            url = self._receiver.url("/ok?dynamic")
            self._post("/dynamic", self._body("dynamic", url=url, secret="s", event_types=["*"]))

    def ingest(self, count: int, *, key: str | None = None) -> None:
        """Through the source; events with one key are duplicates."""
        for _ in range(count):
            number = next(self._numbers)
            self._convoy.ingest(self._mask, {"key": key or f"key-{number}", "number": number})

    def every_kind(self, count: int) -> None:
        for endpoint in self.endpoints:
            self.single(endpoint, count)
        self.single("ok", 2, idempotency_key=f"single-{next(self._numbers)}")
        self.fan_out(count, idempotency_key=f"fanout-{next(self._numbers)}")
        self.fan_out(count)
        self.broadcast(count)
        self.broadcast(2, idempotency_key=f"broadcast-{next(self._numbers)}")
        self.dynamic(count)
        self.ingest(count)
        self.ingest(2, key=f"ingest-{next(self._numbers)}")

    def pause(self, endpoint: str) -> None:
        """Pauses it, or takes the pause away."""
        self._convoy.call("PUT", f"/projects/{self.outgoing}/endpoints/{self.endpoints[endpoint]}/pause")

    def deactivate(self, endpoint: str) -> None:
        """As Convoy does itself after too many failures: there is no call for it."""
        statement = "UPDATE convoy.endpoints SET status = 'inactive' WHERE id = %s"
        self._convoy.postgres.execute(statement, self.endpoints[endpoint])

    def activate(self, endpoint: str) -> None:
        self._convoy.call("POST", f"/projects/{self.outgoing}/endpoints/{self.endpoints[endpoint]}/activate")

    def delete(self, endpoint: str) -> None:
        """Nothing more is sent to it."""
        self._convoy.call("DELETE", f"/projects/{self.outgoing}/endpoints/{self.endpoints.pop(endpoint)}")

    def rename(self, name: str) -> None:
        self._convoy.call("PUT", f"/projects/{self.outgoing}", {"name": name})

    def resend(self, count: int) -> int:
        """Deliveries that failed, one by one; how many Convoy took."""
        taken = 0
        for delivery in itertools.islice(self._deliveries("Failure"), count):
            try:
                self._convoy.call("PUT", f"/projects/{self.outgoing}/eventdeliveries/{delivery}/resend")
            except RefusedError:
                continue
            taken += 1
        return taken

    def force_resend(self, count: int) -> None:
        """Deliveries that succeeded."""
        ids = list(itertools.islice(self._deliveries("Success"), count))
        self._convoy.call("POST", f"/projects/{self.outgoing}/eventdeliveries/forceresend", {"ids": ids})

    def batch_retry(self, endpoint: str) -> None:
        """All failed deliveries of an endpoint."""
        query = f"status=Failure&endpointId={self.endpoints[endpoint]}"
        self._convoy.call("POST", f"/projects/{self.outgoing}/eventdeliveries/batchretry?{query}")

    def _deliveries(self, status: str) -> Iterator[str]:
        statement = "SELECT id FROM convoy.event_deliveries WHERE project_id = %s AND status = %s ORDER BY id"
        return (id for (id,) in self._convoy.postgres.execute(statement, self.outgoing, status))

    def stop_agent(self, number: signal.Signals) -> None:
        self._convoy.agent.send_signal(number)
        self._convoy.agent.wait(within=60)

    def wait_for_requests(self, more: int) -> None:
        """Until the receiver got that many further requests: the work is in full swing."""
        wanted = self._receiver.requests.total() + more
        wait_until(lambda: self._receiver.requests.total() >= wanted, what=f"{more} further requests", within=90)

    def rest(self) -> None:
        """Waits until no queue has work left: archived tasks may stay."""
        quiet_since: list[float] = []

        def is_quiet() -> bool:
            if self._open():
                quiet_since.clear()
            else:
                quiet_since.append(time.monotonic())
            # Between two queues a task is nowhere for a moment.
            return len(quiet_since) > 1 and quiet_since[-1] - quiet_since[0] > 1.0

        try:
            wait_until(is_quiet, within=REST_SECONDS, what="Convoy's queues are empty")
        except AssertionError as error:
            raise AssertionError(f"{error}; open: {self._open()}") from error

    def _open(self) -> dict[str, int]:
        """Tasks that will run still, by queue and state."""
        found: dict[str, int] = {}
        for queue in QUEUES:
            for state in ("pending", "active", "scheduled", "retry"):
                key = f"asynq:{{{queue}}}:{state}"
                count = self._redis.llen(key) if state in ("pending", "active") else self._redis.zcard(key)
                if count:
                    found[f"{queue} {state}"] = count
        return found

    def wait_for_retries(self, queue: str, count: int) -> None:
        """Until so many tasks of the queue wait to be tried again."""
        key = f"asynq:{{{queue}}}:retry"
        wait_until(lambda: self._redis.zcard(key) >= count, what=f"{count} tasks in retry in {queue}")
