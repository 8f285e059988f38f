"""A server of ``tiewise serve`` in another process, an export with spread for it, and clients."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import h11
import numpy as np
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from loaded_runs import open_tiny
from tiewise.data.pairs import build_pairs
from tiewise.judges.judge import Judge
from tiewise.serving.export import export_adapter

# Servers are forked from a process that has imported everything, so each starts within a second.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tiewise.serving.server.run",
        "tiewise.models.pretrained",
        "transformers.models.gemma2.modeling_gemma2",
    ]
)
ASK = {"prompt": "What is 2 + 2?", "responses": ["4", "I can't say.", "Four, as 2 + 2 = 4."]}
N_CLIENTS = 16
DOCUMENTED = [not_a_server_error, response_schema_conformance, status_code_conformance]


def export_tiny(cache_dir: Path, folder: Path, **fields) -> Path:
    """Export a tiny Gemma 2 whose probabilities differ from row to row; return the folder."""
    opened = open_tiny("tiny", cache_dir, **({"dtype": "float32"} | fields))
    export_adapter(opened.save(folder / "adapter"), opened.backbone_dir, folder / "export")
    return folder / "export"


@dataclasses.dataclass(frozen=True)
class Server:
    """A server in another process; `stop` ends it and returns how many requests it accepted."""

    process: BaseProcess
    address: str
    reports: Connection

    def stop(self) -> int:
        """Send SIGTERM, and return the number of requests that were added to a queue."""
        self.process.terminate()
        return self.reports.recv()


@contextmanager
def running(name: str | Path, *, token: str | None = None, **limits):
    """Serve a judge; yield the server, and stop it at the end."""
    reports, own_end = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_serve, args=(str(name), token, limits, own_end))
    process.start()
    own_end.close()
    try:
        yield Server(process, reports.recv(), reports)
    finally:
        process.terminate()
        process.join(30)


def _serve(name, token, limits, reports):
    """Serve in this process; report the address, and at the end the number of accepted requests."""
    from tiewise.serving.server import batching, engine, run

    os.environ |= {"TIEWISE_TOKEN": token} if token else {}
    submit, accepted = batching.Batcher.submit, []

    def count(batcher, item, *, cost):
        future = submit(batcher, item, cost=cost)
        accepted.append(item)
        return future

    batching.Batcher.submit = count
    # uvicorn repeats the signal when the last answer is sent; this process goes on to report.
    signal.signal(signal.SIGTERM, lambda *_: None)
    run.Limits = lambda: dataclasses.replace(engine.Limits(), **limits)
    run.serve(Judge.from_pretrained(name), host="127.0.0.1", port=0, announce=reports.send)
    reports.send(len(accepted))


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Status and answer of a request; the status is `gone` when the connection was closed."""

    kind: str
    text: str
    status: int | str
    answer: dict | None


class Clients:
    """Threads that ask for texts, send bodies that are refused, and leave connections.

    Each of 16 threads asks `n_each` times. `outcomes` has one entry for each request whose answer
    was waited for, and `n_left` is the number of requests sent to their end and left.
    """

    def __init__(self, address: str, texts: list[str], *, n_each: int, max_bytes: int) -> None:
        host, port = address.removeprefix("http://").split(":")
        self.place = host, int(port)
        self.texts, self.n_each = texts, n_each
        self.outcomes: list[Outcome] = []
        self.n_left = 0
        self._bad = {"oversized": b" " * (max_bytes + 1), "malformed": b'{"prompt": "Which?"'}
        self._lock = threading.Lock()
        self.threads = [threading.Thread(target=self._ask_all, args=(k,)) for k in range(N_CLIENTS)]

    def start(self) -> None:
        """Start all threads."""
        for thread in self.threads:
            thread.start()

    def join(self) -> None:
        """Wait until every thread has ended."""
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive()

    def _ask_all(self, number: int) -> None:
        others = ("oversized", "malformed", "half", "left", "", "")
        for place in range(self.n_each):
            other = others[(number + place) % len(others)]
            if other in self._bad:
                self._ask(other, "", self._bad[other])
            elif other:
                with contextlib.suppress(OSError):
                    self._leave(number, is_half=other == "half")
            text = self.texts[(number * self.n_each + place) % len(self.texts)]
            self._ask("good", text, self._body(text))

    def _body(self, text: str) -> bytes:
        return json.dumps({"prompt": "Which?", "responses": [text, "other"]}).encode()

    def _request(self, body: bytes) -> bytes:
        host = ":".join(map(str, self.place))
        head = f"POST /judge HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    def _leave(self, number: int, *, is_half: bool) -> None:
        """Close a connection after half of a request, or before the answer."""
        request = self._request(self._body(self.texts[number]))
        with socket.create_connection(self.place, timeout=60) as connection:
            connection.sendall(request[: -10 if is_half else None])
        if not is_half:
            with self._lock:
                self.n_left += 1

    def _ask(self, kind: str, text: str, body: bytes) -> None:
        received = b""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(self.place, timeout=60) as connection,
        ):
            connection.sendall(self._request(body))
            while part := connection.recv(65_536):
                received += part
        self.outcomes.append(Outcome(kind, text, *_read_answer(received)))


def _read_answer(received: bytes) -> tuple[int | str, dict | None]:
    """Return status and JSON of exactly one response; `gone` and None when there is none."""
    if not received:
        return "gone", None
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="POST", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(received)
    status = reader.next_event().status_code
    parts = []
    while not isinstance(event := reader.next_event(), h11.EndOfMessage):
        parts.append(event.data)
    assert reader.trailing_data == (b"", False), "a second response"
    return status, json.loads(b"".join(parts))


def check_load(export_dir: Path, *, n_each: int, n_before: int) -> None:
    """Load a server with `Clients`, stop it after `n_before` outcomes, and check every outcome."""
    texts = [f"answer {place} " * (1 + place % 9) for place in range(20)]
    with running(export_dir, batch_tokens=500, max_waiting=1_000, max_bytes=50_000) as server:
        clients = Clients(server.address, texts, n_each=n_each, max_bytes=50_000)
        clients.start()
        deadline = time.monotonic() + 100
        while len(clients.outcomes) < n_before and time.monotonic() < deadline:
            time.sleep(0.001)
        n_at_stop = len(clients.outcomes)
        n_accepted = server.stop()
        clients.join()
    good = [outcome for outcome in clients.outcomes if outcome.kind == "good"]
    assert len(good) == N_CLIENTS * n_each
    assert "gone" not in {outcome.status for outcome in clients.outcomes[:n_at_stop]}
    right = [outcome for outcome in good if outcome.status == 200]
    assert len(right) >= n_before / 4
    assert len(right) <= n_accepted <= len(right) + clients.n_left, "an accepted one was lost"
    judge = Judge.from_pretrained(export_dir, device="cpu")
    pairs = {"id": range(len(texts)), "prompt": [["Which?"]] * len(texts)}
    pairs |= {"response_a": [[text] for text in texts], "response_b": [["other"]] * len(texts)}
    expected = dict(zip(texts, judge.predict_proba(build_pairs(pairs)), strict=True))
    for outcome in right:
        probs = [outcome.answer["pairs"][0]["probs"][name] for name in ("a", "b", "tie")]
        np.testing.assert_allclose(probs, expected[outcome.text], rtol=0, atol=1e-5)
    _check_refusals([outcome for outcome in clients.outcomes if outcome.status != 200])


def _check_refusals(refused: list[Outcome]) -> None:
    """Check status and words of requests that were not answered."""
    allowed = {"good": {429, 503}, "oversized": {413}, "malformed": {400}}
    seen = dict.fromkeys(allowed, 0)
    for outcome in refused:
        if outcome.status != "gone":
            assert outcome.status in allowed[outcome.kind]
            assert outcome.answer["error"]["code"] == outcome.status
            assert len(outcome.answer["error"]["message"].split()) > 3
            seen[outcome.kind] += 1
    assert min(seen["oversized"], seen["malformed"]) >= 5


def check_documented(address: str, *, n_examples: int) -> None:
    """Send `n_examples` requests of schemathesis to each route that the OpenAPI page documents.

    Valid and invalid ones get a documented status and a body of the documented shape, and none ends
    with a server error.
    """
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    routes = {(operation.method.upper(), operation.path) for operation in operations}
    assert routes == {
        ("POST", "/judge"), ("POST", "/classify"), ("GET", "/health"), ("GET", "/metrics"),
    }  # fmt: skip
    for operation in operations:
        # The plugin for pytest of schemathesis 4.32 fails with pytest 9.2.
        @settings(max_examples=n_examples, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case):
            case.call_and_validate(checks=DOCUMENTED)

        check()
