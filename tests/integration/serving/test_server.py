"""Tests of the server and of its client, over real connections on this machine."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pandas as pd
import pytest
import torch
import urllib3

import tiewise as tw
from served import ASK, check_documented, check_load, export_tiny, running
from tiewise.cli import main
from tiewise.data.simulation.simulate import simulate, write_simulation
from tiewise.errors import ConfigError, ModelError
from tiewise.files import read_json, write_json
from tiewise.judges import served as served_judges
from tiewise.judges.judge import Judge
from tiewise.runs.manifest import write_manifest

HTTP = urllib3.PoolManager(retries=False, timeout=60)


@pytest.fixture(scope="module")
def export_dir(cache_dir, tmp_path_factory):
    """Export a tiny model."""
    return export_tiny(cache_dir, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(export_dir):
    """Serve the export."""
    with running(export_dir, body_seconds=1, max_bytes=100_000) as server:
        yield server.address


def post(address, path, body, **headers):
    """Return the status and the JSON of a response."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | headers
    answer = HTTP.request("POST", address + path, body=data, headers=headers)
    return answer.status, json.loads(answer.data)


@contextmanager
def answering(answer, statuses=()):
    """Serve the same JSON to every request, with the next status or 200; yield the address."""
    waiting = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(waiting.pop(0) if waiting else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_served_judge_equals_export(server, export_dir):
    """Every column of the predictions agrees with the loaded export, in one order and in both."""
    pairs = pd.concat([simulate(30, seed=3), simulate(30, seed=3)[:5]], ignore_index=True)
    local = Judge.from_pretrained(export_dir, device="cpu")
    served = Judge.from_pretrained(f"vllm:{server}", template_from=export_dir)
    for swap in (False, True):
        expected, found = local.predict(pairs, swap=swap), served.predict(pairs, swap=swap)
        pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected["prob_a"]) > 0.05, "the rows must differ"
    order = local.rank(*ASK.values()).order.tolist()
    assert tw.rank(*ASK.values(), run=served).order.tolist() == order
    found = tw.predict(pairs, run=served)  # both orders by default
    pd.testing.assert_frame_equal(found, expected, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="out needs a run"):
        tw.predict("pairs.csv", run=served, out="probs.csv")
    np.testing.assert_allclose(
        tw.score("p", "a", "b", run=served), local.score("p", "a", "b"), rtol=0, atol=1e-6
    )


def test_served_predictions_are_evaluated(server, export_dir, tmp_path, capsys):
    """`tiewise evaluate` scores a file of a served judge's predictions as those of the export."""
    votes, out = tmp_path / "votes.csv", tmp_path / "probs.csv"
    pairs = simulate(40, seed=5)
    write_simulation(pairs, votes)
    served = Judge.from_pretrained(f"vllm:{server}", template_from=export_dir)
    served.predict(votes).to_csv(out, index=False)
    assert main(["evaluate", "--data", str(votes), "--predictions", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["log_loss"]["value"]
    probs = Judge.from_pretrained(export_dir, device="cpu").predict_proba(pairs)
    expected = -np.log(probs[np.arange(40), pairs["label"].to_numpy(int)]).mean()
    assert found == pytest.approx(expected, abs=1e-5)


def test_probabilities_are_understood(server, export_dir, monkeypatch):
    """A server that ignores `use_activation` answers with probabilities; they become logits."""
    served = Judge.from_pretrained(f"vllm:{server}", template_from=export_dir)
    request = served.model._http.request

    def ask(method, url, *, json):
        json.pop("use_activation")
        return request(method, url, json=json)

    monkeypatch.setattr(served.model._http, "request", ask)
    pairs = simulate(8, seed=1)
    local = Judge.from_pretrained(export_dir, device="cpu")
    np.testing.assert_allclose(
        served.predict_proba(pairs), local.predict_proba(pairs), rtol=0, atol=1e-6
    )


def test_busy_server_is_asked_again(export_dir, monkeypatch):
    """A full queue and a slow answer are waited for, until the patience ends."""
    monkeypatch.setattr(served_judges, "_PAUSE", 0.01)
    answer = {"data": [{"index": 0, "probs": [1, 2, 3]}]}
    with answering(answer, [504, *[429] * 9, 503, 200, 429, 429]) as address:
        judge = served_judges.ServedJudge(address, export_dir)
        assert judge._classify([[1]]).tolist() == [[1, 2, 3]]
        monkeypatch.setattr(served_judges, "_PATIENCE", 0.0)
        with pytest.raises(ModelError, match="refuses the rows with status 429"):
            judge._classify([[1]])


def test_requests_are_limited():
    """Requests keep the order of rows, and have at most 64 rows and 16,384 tokens, or one row."""
    lengths = [9] * 130 + [20_000, 5_000, 11_384, 1, 16_384, 2]
    rows = [[place] * length for place, length in enumerate(lengths)]
    parts = served_judges._cut(rows)
    assert [row for part in parts for row in part] == rows
    assert [len(part) for part in parts] == [64, 64, 2, 1, 2, 1, 1, 1]
    assert served_judges._cut([]) == []


def test_other_export_is_refused(server, cache_dir, tmp_path):
    """The stored rows of another model do not fit the server's answers."""
    other = export_tiny(cache_dir, tmp_path, lora_r=8)
    judge = Judge.from_pretrained(f"vllm:{server}", template_from=other)
    with pytest.raises(ModelError, match="another model or another export"):
        judge.predict(simulate(3, seed=0))


def test_rounding_server_is_refused(export_dir, tmp_path):
    """A server that rounds float32 weights to bfloat16 is recognised, and the flag is named."""
    from transformers import AutoModelForSequenceClassification

    rounded = tmp_path / "rounded"
    shutil.copytree(export_dir, rounded)
    model = AutoModelForSequenceClassification.from_pretrained(export_dir, dtype=torch.bfloat16)
    model.save_pretrained(rounded)
    write_manifest(rounded)
    with running(rounded) as server:
        judge = Judge.from_pretrained(f"vllm:{server.address}", template_from=export_dir)
        with pytest.raises(ModelError, match="start it with --dtype float32"):
            judge.predict(simulate(3, seed=0))


def test_judge_route_equals_python(server, export_dir):
    """`/judge` returns the probabilities and the ranking of `Judge`."""
    status, found = post(server, "/judge", ASK)
    assert status == 200
    judge = Judge.from_pretrained(export_dir, device="cpu")
    expected = judge.compare_all(*ASK.values())
    for pair in found["pairs"]:
        probs = [pair["probs"][name] for name in ("a", "b", "tie")]
        np.testing.assert_allclose(probs, expected[pair["first"], pair["second"]], atol=1e-6)
        assert pair["n_tokens"] > 0
        assert pair["n_truncated"] == 0
    ranking = judge.rank(*ASK.values())
    assert [place["response"] for place in found["ranking"]] == ranking.order.tolist()
    assert [place["place"] for place in found["ranking"]] == sorted(ranking.places.tolist())


def test_classify_repeats_the_example(server, export_dir):
    """`/classify` answers the row of the card with the probabilities of the card."""
    example = read_json(export_dir / "export.json")["example"]
    status, found = post(server, "/classify", {"input": [example["input"]], "model": "tiewise"})
    assert status == 200
    [entry] = found["data"]
    np.testing.assert_allclose(entry["probs"], example["probs"], atol=1e-6)
    assert entry["label"] == ("A", "B", "tie")[int(np.argmax(example["probs"]))]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/judge", b"{", 400, "not JSON"),
        ("/judge", b"\xff", 400, "error"),
        ("/judge", b"[" * 50_000, 400, "error"),
        ("/judge", {"prompt": "p", "responses": ["one"]}, 422, "at least 2"),
        ("/judge", {"prompt": "p", "responses": ["a", 5]}, 422, "valid string"),
        ("/judge", ASK | {"temperature": 1}, 422, "temperature"),
        ("/judge", {"prompt": "p" * 200_000, "responses": ["a", "b"]}, 413, "too large"),
        ("/classify", {"input": "What is 2 + 2?"}, 422, "input"),
        ("/classify", {"input": [["What is 2 + 2?"]]}, 422, "valid integer"),
        ("/classify", {"input": [[1, 10**6]]}, 422, "highest is"),
        ("/classify", {"input": [[1, 2**70]]}, 422, "input"),
        ("/classify", {"input": [[5] * 97]}, 422, "expected at most 96"),
        ("/classify", {"input": [[-1]]}, 422, "greater than or equal to 0"),
        ("/nothing", {}, 404, "Not Found"),
    ],
)
def test_bad_requests_are_refused_in_words(server, path, body, status, words):
    """Every refusal has a message and its status in JSON."""
    found, answer = post(server, path, body)
    assert (found, answer["error"]["code"]) == (status, status)
    assert words in answer["error"]["message"]
    assert post(server, "/judge", ASK)[0] == 200, "the server goes on"


def test_many_long_pairs_are_too_much():
    """A request whose pairs have more tokens than the queue holds is refused, not computed."""
    with running("shipped", max_waiting=10_000) as server:
        address = server.address
        status, answer = post(address, "/judge", {"prompt": "p" * 9_000, "responses": ["r"] * 16})
        assert (status, answer["error"]["code"]) == (413, 413)
        assert "Send fewer responses" in answer["error"]["message"]
        assert post(address, "/judge", {"prompt": "p" * 9_000, "responses": ["r"] * 2})[0] == 200


def test_slow_body_is_refused(server):
    """A body that does not arrive in time ends with status 408."""
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        head = f"POST /judge HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 50\r\n\r\n{{"
        connection.sendall(head.encode())
        assert connection.recv(1_000).startswith(b"HTTP/1.1 408")


def test_health_and_metrics(server, export_dir):
    """`/health` names the judge, and `/metrics` counts requests by route and status."""
    health = json.loads(HTTP.request("GET", f"{server}/health").data)
    assert health == {"status": "ok", "model": str(export_dir), "version": tw.__version__}
    post(server, "/judge", ASK)
    lines = HTTP.request("GET", f"{server}/metrics").data.decode()
    assert 'tiewise_requests_total{route="/judge",status="200"}' in lines
    assert "tiewise_waiting_tokens 0.0" in lines


def test_token_is_required(monkeypatch):
    """With a token in the environment only requests that have it are answered."""
    with running("shipped", token="secret") as server:
        address = server.address
        assert post(address, "/judge", ASK)[0] == 401
        assert post(address, "/judge", ASK, authorization="Bearer wrong")[0] == 401
        assert post(address, "/judge", ASK, authorization="Bearer secret")[0] == 200
        status, answer = post(address, "/classify", {"input": [[1]]}, authorization="Bearer secret")
        assert (status, "Use /judge" in answer["error"]["message"]) == (422, True)


def test_requests_are_answered_as_documented(server):
    """Schemathesis finds no answer that differs from the OpenAPI page, and no server error."""
    check_documented(server, n_examples=6)


def test_load_with_killed_connections_and_a_stop(export_dir):
    """16 clients send over 200 requests, among them oversized, malformed and abandoned ones.

    Each request that is accepted is answered once and right, also while the server stops, and each
    other one is refused in words; connections are closed without an answer only after the stop.
    """
    check_load(export_dir, n_each=13, n_before=150)


def test_damaged_export_is_refused(export_dir, tmp_path):
    """A changed template or tokenizer of the client's folder is noticed before a row is sent."""
    for number, name in enumerate(("template.json", "tokenizer/tokenizer.json")):
        copy = tmp_path / str(number)
        shutil.copytree(export_dir, copy)
        changed = read_json(copy / name) | {"another": 1}
        write_json(copy / name, changed)
        with pytest.raises(ModelError, match=name):
            Judge.from_pretrained("vllm:http://127.0.0.1:1", template_from=copy)


@pytest.mark.parametrize(
    "answer",
    [{"data": [{"index": 0, "probs": [0.5, 0.5]}]}, {"data": []}, [], "text", {"data": [{}]}],
)
def test_other_answers_are_refused(export_dir, answer):
    """A server of another kind, or with another number of classes, is refused at once."""
    with answering(answer) as address:
        judge = Judge.from_pretrained(f"vllm:{address}", template_from=export_dir)
        with pytest.raises(ModelError, match="did not answer with 3 numbers for each of 16 rows"):
            judge.predict(simulate(2, seed=0))


def test_address_without_server_is_named(export_dir, monkeypatch):
    """The message names the address; without `template_from` it says what is missing."""
    with pytest.raises(ModelError, match="template_from"):
        Judge.from_pretrained("vllm:http://127.0.0.1:1")
    monkeypatch.setattr("tiewise.judges.served._RETRIES", urllib3.Retry(0))
    judge = Judge.from_pretrained("vllm:http://127.0.0.1:1", template_from=export_dir)
    with pytest.raises(ModelError, match="/classify does not answer"):
        judge.predict(simulate(2, seed=0))
