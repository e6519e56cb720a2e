"""Over real sockets: a client that dribbles, or does not read, loses its connection; the others notice nothing."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from rag_service.api.connections import MOST_HEAD_BYTES, server_config
from rag_service.api.limits import SLOWEST
from rag_service.cli.serving import HttpThread, serving
from tests.conftest import ADMIN_KEY, settings_for

TIMEOUT_S = 0.6
# What the timers of a busy machine may be late by.
LATE_S = 3.0
LARGE = 32 * 1024 * 1024

Address = tuple[str, int]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """Where a whole service listens that waits `TIMEOUT_S` for a client."""
    settings = settings_for(tmp_path_factory.mktemp("slow"), client_timeout_s=TIMEOUT_S)
    with serving(settings, "127.0.0.1", 0, worker=False) as running:
        yield "127.0.0.1", int(running.url.rpartition(":")[2])


@contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    with socket.create_connection(address, timeout=TIMEOUT_S + LATE_S) as client:
        yield client


def until_closed(client: socket.socket) -> tuple[bytes, float]:
    """All that comes before the other side hangs up, and the seconds until then."""
    began, received = time.monotonic(), bytearray()
    try:
        while data := client.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return bytes(received), time.monotonic() - began


def dribble(client: socket.socket, data: bytes, pause_s: float = 0.05) -> bytes:
    """Send byte by byte until the other side has had enough; return what it said."""
    client.settimeout(pause_s)
    received = b""
    ends = time.monotonic() + TIMEOUT_S + LATE_S
    for place in range(len(data)):
        assert time.monotonic() < ends, "the service still listens"
        try:
            client.sendall(data[place : place + 1])
            answered = client.recv(65_536)
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            return received
        if not answered:
            return received
        received += answered
    raise AssertionError("all of it was taken")


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def problem(answer: bytes) -> dict[str, object]:
    body: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert b"application/problem+json" in answer.partition(b"\r\n\r\n")[0]
    return body


def head(path: str = "/livez", *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


def retrieve(length: int) -> bytes:
    json_body = ("Content-Type: application/json", f"Content-Length: {length}", f"Authorization: Bearer {ADMIN_KEY}")
    return head("/v1/teams", *json_body, method="POST")


class TestWhoeverDoesNotSend:
    def test_loses_a_connection_on_which_nothing_comes(self, address: Address) -> None:
        with connected(address) as client:
            answer, seconds = until_closed(client)
        assert answer == b""
        assert TIMEOUT_S * 0.5 < seconds < TIMEOUT_S + LATE_S

    def test_gets_408_for_half_a_head(self, address: Address) -> None:
        with connected(address) as client:
            client.sendall(head()[:-2])
            answer, seconds = until_closed(client)
        assert status(answer) == 408
        assert problem(answer)["code"] == "too_slow"
        assert seconds < TIMEOUT_S + LATE_S

    def test_gets_408_for_a_head_that_dribbles(self, address: Address) -> None:
        with connected(address) as client:
            assert status(dribble(client, head("/livez", "X-Long: " + "x" * 500))) == 408

    def test_gets_408_for_half_a_body(self, address: Address) -> None:
        with connected(address) as client:
            client.sendall(retrieve(100) + b'{"name":')
            client.settimeout(TIMEOUT_S + LATE_S)
            answer = client.recv(65_536)
        assert status(answer) == 408
        assert problem(answer)["code"] == "too_slow"

    def test_gets_408_for_a_body_that_dribbles_though_no_pause_is_long(self, address: Address) -> None:
        with connected(address) as client:
            client.sendall(retrieve(500))
            assert status(dribble(client, b"x" * 500)) == 408

    def test_gets_408_for_a_chunked_body_that_dribbles(self, address: Address) -> None:
        chunked = ("Content-Type: application/json", "Transfer-Encoding: chunked", f"Authorization: Bearer {ADMIN_KEY}")
        with connected(address) as client:
            client.sendall(head("/v1/teams", *chunked, method="POST"))
            assert status(dribble(client, b"1\r\nx\r\n" * 100)) == 408

    def test_cannot_go_on_for_ever_after_it_was_answered(self, address: Address) -> None:
        """Refused at once for want of a key, it goes on with its body."""
        with connected(address) as client:
            client.sendall(head("/v1/teams", "Content-Length: 100000", method="POST"))
            assert status(dribble(client, b"x" * 100_000)) == 401

    def test_may_be_slow_within_the_time(self, address: Address) -> None:
        with connected(address) as client:
            for part in (head()[:10], head()[10:20], head()[20:]):
                client.sendall(part)
                time.sleep(TIMEOUT_S / 6)
            assert status(client.recv(65_536)) == 200

    def test_may_take_longer_when_bytes_keep_moving(self, address: Address) -> None:
        body = b'{"name": "slow but steady", "x": "' + b" " * int(4 * TIMEOUT_S * SLOWEST) + b'"}'
        with connected(address) as client:
            client.sendall(retrieve(len(body)))
            began = time.monotonic()
            for start in range(0, len(body), SLOWEST // 5):
                client.sendall(body[start : start + SLOWEST // 5])
                time.sleep(0.08)
            assert time.monotonic() - began > 1.5 * TIMEOUT_S
            assert status(client.recv(65_536)) == 422


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", str(LARGE).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * LARGE})


@pytest.fixture
def large_answers() -> Iterator[Address]:
    """A server that answers with more than the kernel takes in for a client that does not read."""

    with listening(uvicorn.Server(server_config(large, TIMEOUT_S))) as where:
        yield where


@contextmanager
def listening(server: uvicorn.Server) -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        http = HttpThread(server, listener)
        http.start()
        while not http.is_serving:
            time.sleep(0.01)
        try:
            yield listener.getsockname()
        finally:
            http.stop()


class TestWhoeverDoesNotRead:
    def test_is_cut_off(self, large_answers: Address) -> None:
        with connected(large_answers) as client:
            client.sendall(head())
            time.sleep(2 * TIMEOUT_S + 1)
            answer, _ = until_closed(client)
        assert len(answer) < LARGE

    def test_is_cut_off_when_it_reads_a_byte_now_and_then(self, large_answers: Address) -> None:
        with connected(large_answers) as client:
            client.sendall(head())
            for _ in range(30):
                client.recv(1)
                time.sleep((2 * TIMEOUT_S + 1) / 30)
            answer, _ = until_closed(client)
        assert len(answer) < LARGE

    def test_gets_all_of_it_when_it_reads_steadily(self, large_answers: Address) -> None:
        began, got = time.monotonic(), 0
        with connected(large_answers) as client:
            client.sendall(head("/", "Connection: close"))
            while data := client.recv(1_000_000):
                got += len(data)
                time.sleep(len(data) / LARGE * 2.5 * TIMEOUT_S)
        assert got > LARGE
        assert time.monotonic() - began > 1.5 * TIMEOUT_S


def bare(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(app, log_config=None, lifespan="off", ws="none")


class TestTheBareServer:
    """What the tests above would look like without timers, so that they are known to notice."""

    def test_waits_without_end_for_a_client_that_does_not_read(self) -> None:
        with listening(uvicorn.Server(bare(large))) as where, connected(where) as client:
            client.sendall(head("/", "Connection: close"))
            time.sleep(2 * TIMEOUT_S + 1)
            answer, _ = until_closed(client)
        assert len(answer) > LARGE

    def test_waits_without_end_for_half_a_head(self) -> None:
        with listening(uvicorn.Server(bare(never))) as where, connected(where) as client:
            client.settimeout(3 * TIMEOUT_S)
            client.sendall(head()[:-2])
            with pytest.raises(TimeoutError):
                client.recv(1)


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("half a head is no request")


def test_others_are_served_while_hundreds_dribble(address: Address) -> None:
    slow = [socket.create_connection(address) for _ in range(300)]
    try:
        for client in slow:
            client.sendall(b"GET /livez HT")
        took = []
        for _ in range(20):
            began = time.monotonic()
            with connected(address) as client:
                client.sendall(head())
                assert status(client.recv(65_536)) == 200
            took.append(time.monotonic() - began)
        assert sorted(took)[len(took) // 2] < 0.25
    finally:
        for client in slow:
            client.close()


def test_a_head_without_end_is_431_before_it_fills_memory(address: Address) -> None:
    with connected(address) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        time.sleep(0.1)

        def pour() -> None:
            try:
                for _ in range(20):
                    client.sendall(b"X-Fill: " + b"x" * MOST_HEAD_BYTES + b"\r\n")
            except (BrokenPipeError, ConnectionResetError):
                return

        pouring = threading.Thread(target=pour)
        pouring.start()
        answer, _ = until_closed(client)
        pouring.join()
    assert answer == b"" or status(answer) == 431


@pytest.mark.parametrize(
    "request_head",
    [
        b"NONSENSE\r\n\r\n",
        b"BREW /livez HTTP/1.1\r\nHost: here\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /v1/teams HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/teams HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/teams HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_is_a_problem_too_and_tells_no_server(address: Address, request_head: bytes) -> None:
    with connected(address) as client:
        client.sendall(request_head)
        answer, _ = until_closed(client)
    assert status(answer) == 400
    assert problem(answer)["status"] == 400
    assert b"uvicorn" not in answer.lower()


def test_answers_name_no_server_software(address: Address) -> None:
    with connected(address) as client:
        client.sendall(head("/livez", "Connection: close"))
        answer, _ = until_closed(client)
    headers = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\r\ndate:" in headers
    assert b"\r\nserver:" not in headers
    assert b"uvicorn" not in headers


def test_several_requests_on_one_connection_are_answered_in_order(address: Address) -> None:
    """Timers of one request must not cut off the next."""
    with connected(address) as client:
        client.sendall(head() * 3)
        answer = b""
        while answer.count(b'{"status":"ok"}') < 3:
            answer += client.recv(65_536)
        time.sleep(TIMEOUT_S / 2)
        client.sendall(head("/livez", "Connection: close"))
        last, _ = until_closed(client)
    assert status(last) == 200
