"""One message to a receiver that may be slow, broken or hostile."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rag_service.webhooks.post import Post
from tests.receiver import Receiver, receiving

BODY = b'{"type":"x"}'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def post(url: str, timeout_s: float = 5.0) -> tuple[str, int | None, float]:
    answer = Post(timeout_s, private=True).send(url, {"X-Own": "1", "Content-Type": "application/json"}, BODY)
    return answer.reason, answer.status, answer.retry_after


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        *[(200, "delivered"), (204, "delivered"), (299, "delivered"), (300, "redirected"), (400, "refused")],
        *[(404, "refused"), (410, "gone"), (429, "refused"), (500, "refused"), (503, "refused"), (599, "refused")],
    ],
)
def test_the_status_says_whether_it_was_accepted(receiver: Receiver, status: int, reason: str) -> None:
    receiver.answer = lambda _: status
    assert post(receiver.url()) == (reason, status, 0.0)


def test_the_message_arrives_as_it_is(receiver: Receiver) -> None:
    post(receiver.url("/a/b?token=t%20u", host="localhost"))
    (message,) = receiver.messages
    assert (message.path, message.body) == ("/a/b?token=t%20u", BODY)
    assert message.headers["x-own"] == "1"
    assert message.headers["host"] == f"localhost:{receiver.port}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda message: (status, {"Location": "/elsewhere"}) if message.path == "/hook" else 200
    assert post(receiver.url())[:2] == ("redirected", status)
    assert [message.path for message in receiver.messages] == ["/hook"]


@pytest.mark.parametrize(
    ("asked", "granted"),
    [("120", 120), (" 7 ", 7), ("999999999", 86_400), ("soon", 0), ("", 0), ("-5", 0), ("1e9", 0), ("\u0663", 0)],
)
def test_a_receiver_may_ask_to_wait_but_not_for_ever(receiver: Receiver, asked: str, granted: float) -> None:
    receiver.answer = lambda _: (503, {"Retry-After": asked} if asked.isascii() else {})
    assert post(receiver.url())[2] == granted


def test_it_may_ask_so_by_a_date_too(receiver: Receiver) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=600), usegmt=True)
    receiver.answer = lambda _: (429, {"Retry-After": at})
    assert 590 < post(receiver.url())[2] <= 600


def test_where_nobody_listens_it_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert post(f"http://127.0.0.1:{unused.getsockname()[1]}/")[0] == "unreachable"


@contextmanager
def speaking(say: Callable[[socket.socket], object]) -> Iterator[str]:
    """A server that says what it likes to whoever connects."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)

        def serve() -> None:
            while not ended.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    try:
                        say(connection)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        finally:
            ended.set()
            thread.join()


def take(connection: socket.socket) -> None:
    """Read the whole message: a connection that is closed before is a broken one."""
    read = b""
    while not read.endswith(BODY) and (part := connection.recv(65_536)):
        read += part


def drip(connection: socket.socket) -> None:
    """A byte of headers every 50 ms, for ever: each wait for a byte is short."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def stay_silent(connection: socket.socket) -> None:
    """Until the other side hangs up."""
    while connection.recv(65_536):
        pass


@pytest.mark.parametrize("say", [drip, stay_silent], ids=["drips", "is silent"])
def test_a_receiver_that_takes_for_ever_is_left_in_time(say: Callable[[socket.socket], object]) -> None:
    with speaking(say) as url:
        began = time.monotonic()
        assert post(url, timeout_s=0.5)[:2] == ("timeout", None)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 300,
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"HTTP/1.1 99 \r\n\r\n",
    ],
)
def test_what_is_no_http_delivers_nothing(answer: bytes) -> None:
    with speaking(lambda connection: (take(connection), connection.sendall(answer))) as url:
        reason, status, _ = post(url)
    assert (reason, status) in [("unreachable", None), ("unreadable", None)]


def test_an_endless_body_is_not_read() -> None:
    def endless(connection: socket.socket) -> None:
        take(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65_536)

    with speaking(endless) as url:
        began = time.monotonic()
        assert post(url, timeout_s=60)[:2] == ("delivered", 200)
        assert time.monotonic() - began < 20


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of `localhost`, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def speaking_tls(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def say(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            take(secured)
            secured.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with speaking(say) as url:
        yield url.replace("http://127.0.0.1", "https://localhost")


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Path) -> None:
    with speaking_tls(certificate) as url:
        assert post(url)[0] == "tls"


def test_a_certificate_is_checked_for_the_name_though_the_connection_goes_to_an_address(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with speaking_tls(certificate) as url:
        assert post(url)[:2] == ("delivered", 204)
        assert post(url.replace("localhost", "127.0.0.1"))[0] == "tls"
