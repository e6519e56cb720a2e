"""One POST to an address that somebody else chose: bounded in time, never redirected, its answer not read."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from urllib.parse import SplitResult, urlunsplit

import httpx

from rag_service.webhooks.addresses import AddressRefusedError, parsed, port_of, resolve

DELIVERED = "delivered"
GONE = "gone"
# So much of what a receiver asks to wait is granted.
_LONGEST_WAIT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`reason`: delivered, gone, redirected, refused (any other status), timeout, unreachable, tls, unresolved,
    address_refused or unreadable. `status` None: there was no answer. `retry_after`: seconds that it asked for.
    """

    reason: str
    status: int | None = None
    ms: float = 0.0
    retry_after: float = 0.0


@dataclass(frozen=True)
class Post:
    """`timeout_s` is for all of it but the look at the name, which the resolver limits. `private`: see `resolve`."""

    timeout_s: float
    private: bool

    def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Never raises for what the other side does."""
        began = time.monotonic()
        try:
            answer = self._exchange(parsed(url), headers, body)
        except AddressRefusedError:
            answer = Answer("address_refused")
        except socket.gaierror:
            answer = Answer("unresolved")
        except (OSError, http.client.HTTPException) as error:
            late = isinstance(error, TimeoutError) or time.monotonic() - began >= self.timeout_s
            answer = Answer("timeout" if late else "tls" if isinstance(error, ssl.SSLError) else "unreachable")
        except ValueError:  # of http.client, for an answer that is not HTTP
            answer = Answer("unreadable")
        return replace(answer, ms=round((time.monotonic() - began) * 1000, 1))

    def _exchange(self, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> Answer:
        host, port = parts.hostname or "", port_of(parts)
        addresses = resolve(host, port, private=self.private)
        until = time.monotonic() + self.timeout_s
        with self._connected(addresses, port, until) as raw, _ended_at(until, raw), self._secured(raw, parts) as stream:
            connection = http.client.HTTPConnection(host, port)
            connection.sock = stream
            target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
            connection.request("POST", target, body, {**headers, "Host": parts.netloc, "Connection": "close"})
            answer = connection.getresponse()
            if time.monotonic() >= until:  # what was broken off looks like an answer whose head has ended
                raise TimeoutError
            return Answer(_reason(answer.status), answer.status, retry_after=_seconds(answer.getheader("Retry-After")))

    def _connected(self, addresses: Sequence[str], port: int, until: float) -> socket.socket:
        """To the first of these addresses that answers. Raises OSError."""
        for number, address in enumerate(addresses, start=1):
            try:
                return socket.create_connection((address, port), timeout=max(0.05, until - time.monotonic()))
            except OSError:
                if number == len(addresses):
                    raise
        raise OSError("no address")

    def _secured(self, raw: socket.socket, parts: SplitResult) -> socket.socket:
        return self._tls.wrap_socket(raw, server_hostname=parts.hostname) if parts.scheme == "https" else raw

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """As all our clients do it: the usual authorities, or those of SSL_CERT_FILE."""
        return httpx.create_ssl_context()


@contextmanager
def _ended_at(until: float, connection: socket.socket) -> Iterator[None]:
    """Each wait for a byte has its own limit; this ends an exchange that sends them one by one."""
    handle = connection.dup()  # TLS takes the socket itself away

    def end() -> None:
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - time.monotonic()), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        handle.close()


def _reason(status: int) -> str:
    if 200 <= status < 300:
        return DELIVERED
    if status == http.HTTPStatus.GONE:
        return GONE
    return "redirected" if 300 <= status < 400 else "refused"


def _seconds(given: str | None) -> float:
    """A number or a date (RFC 9110, 10.2.3); 0 where it says nothing usable."""
    value = (given or "").strip()
    if value.isdecimal() and len(value) < 10:
        return min(float(value), _LONGEST_WAIT_S)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    wait = (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(0.0, wait), _LONGEST_WAIT_S)
