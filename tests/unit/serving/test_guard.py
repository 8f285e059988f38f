"""Tests of the socket and the guard of local servers."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiewise.errors import ConfigError
from tiewise.serving.guard import Guard, listen

HERE = {"host": "127.0.0.1:7860"}


def ask(headers, *chunks, kind="http", path="/judge", **options):
    """Return the status of a request and the part of its body that the application read."""
    read, sent = [], []

    async def app(scope, receive, send):
        while True:
            message = await receive()
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    bodies = iter([{"body": chunk, "more_body": True} for chunk in chunks])

    async def receive():
        return next(bodies, {"body": b"", "more_body": False})

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    guard = Guard(app, **({"max_bytes": 100} | options))
    asyncio.run(guard({"type": kind, "path": path, "headers": raw}, receive, send))
    return sent[0]["status"], b"".join(read)


@given(chunks=st.lists(st.binary(min_size=20, max_size=40), max_size=6), is_announced=st.booleans())
def test_body_size_is_limited(chunks, is_announced):
    """A small body passes unchanged; of a large one no more than the limit is read."""
    n_bytes = sum(map(len, chunks))
    headers = HERE | ({"content-length": str(n_bytes)} if is_announced else {})
    status, read = ask(headers, *chunks)
    assert status == (200 if n_bytes <= 100 else 413)
    assert len(read) <= 100
    if status == 200:
        assert read == b"".join(chunks)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:7860"},
        HERE | {"origin": "https://evil.example"},
        HERE | {"origin": "null"},
        HERE | {"origin": "http://127.0.0.1:8000"},
        HERE | {"origin": "https://127.0.0.1:7860"},
        HERE | {"sec-fetch-site": "cross-site"},
        HERE | {"sec-fetch-site": "same-site"},
    ],
)
def test_foreign_requests_are_refused(headers):
    """Another host name, another origin, and requests caused by other pages are not read."""
    assert ask(headers, b"x") == (403, b"")


@pytest.mark.parametrize(
    "headers",
    [
        HERE,
        {"host": "localhost"},
        HERE | {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"},
    ],
)
def test_own_page_is_served(headers):
    """Requests of the page itself, and those without an origin, pass under both host names."""
    assert ask(headers, b"x") == (200, b"x")


@pytest.mark.parametrize("length", ["101", "-1", "1e1", "x"])
def test_invalid_lengths_are_refused(length):
    """A length that is too large or not a number is refused by its header."""
    assert ask(HERE | {"content-length": length}, b"x") == (413, b"")


def test_web_sockets_are_refused():
    """A web socket is refused, since the page uses none."""
    assert ask(HERE, kind="websocket")[0] == 403


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, "/judge", 401),
        ({"authorization": "Bearer wrong"}, "/judge", 401),
        ({"authorization": "secret"}, "/metrics", 401),
        ({"authorization": "Bearer secret"}, "/judge", 200),
        ({}, "/health", 200),
    ],
)
def test_token_is_checked_before_the_body(headers, path, status):
    """Without the token no byte of a body reaches the application."""
    found, read = ask(HERE | headers, b"x", path=path, token="secret")
    assert found == status
    assert read == (b"x" if status == 200 else b"")


def test_other_hosts_need_no_local_name():
    """A server for other machines is addressed by other names; its size limit stays."""
    assert ask({"host": "judge.example"}, b"x", is_local=False) == (200, b"x")
    assert ask({"host": "judge.example"}, b"x" * 101, is_local=False)[0] == 413


def test_slow_body_is_given_up():
    """A body that does not arrive in time is refused."""

    async def never(scope, receive, send):
        raise AssertionError

    async def wait():
        await asyncio.sleep(60)

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/judge", "headers": [(b"host", b"localhost")]}
    asyncio.run(Guard(never, seconds=0.01)(scope, wait, send))
    assert sent[0]["status"] == 408


def test_answers_are_sent_at_once():
    """Connections that asyncio accepts do not use Nagle's algorithm, which delays an answer."""

    async def find_no_delay():
        found = asyncio.get_running_loop().create_future()

        def accept(_, writer):
            accepted = writer.get_extra_info("socket")
            found.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0, flags="--port 0") as listener:
            server = await asyncio.start_server(accept, sock=listener)
            async with server:
                _, writer = await asyncio.open_connection(*listener.getsockname())
                no_delay = await asyncio.wait_for(found, 10)
                writer.close()
        return no_delay

    assert asyncio.run(find_no_delay())


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70_000), ("192.0.2.1", 0)])
def test_address_that_cannot_be_used_is_refused(host, port):
    """The message begins with the flags, and says what to name."""
    with pytest.raises(ConfigError, match=f"^--port {port}: .* a free port, or port 0"):
        listen(host, port, flags=f"--port {port}")


def test_port_in_use_is_refused():
    """A second server on a port is refused."""
    with listen("127.0.0.1", 0, flags="--port 0") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match="Address already in use"):
            listen("127.0.0.1", port, flags=f"--port {port}")
