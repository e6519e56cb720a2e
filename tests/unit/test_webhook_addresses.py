"""Webhooks lead to public addresses only, whatever their name says and however it is written."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from rag_service.webhooks import addresses, post
from rag_service.webhooks.addresses import AddressRefusedError, is_public, is_refused_literal, parsed, resolve
from rag_service.webhooks.post import Answer, Post
from tests.receiver import Receiver, receiving

INSIDE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of most clouds
    "168.63.129.16",  # of Azure, from inside only
    "100.100.100.200",  # of Alibaba
    "192.0.0.192",  # of Oracle
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "100::1",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"]


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_of_inside_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_world_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://example.com",
        "javascript:alert(1)",
        "//example.com",
        "example.com",
        "https://",
        "https:///hook",
        "https://user@example.com",
        "https://user:password@example.com",
        "https://example.com/#fragment",
        "https://example.com:99999",
        "https://example.com:port",
        "https://exa mple.com",
        "https://example.com/\r\nX-Injected: 1",
        "https://[::1",
        "https://ex\u00e4mple.com",
        f"https://example.com/{'x' * 2_048}",
        f"https://{'a' * 64}.com",
    ],
)
def test_what_is_no_plain_web_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as raised:
        parsed(url)
    assert url == "https://" or url not in str(raised.value)


def test_an_address_may_have_a_port_a_path_and_a_query() -> None:
    parts = parsed("https://hooks.example.com:8443/a/b?token=t")
    assert (parts.hostname, parts.port, parts.path, parts.query) == ("hooks.example.com", 8443, "/a/b", "token=t")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "LOCALHOST", "a.localhost", "localhost.", "10.0.0.1"]
)
def test_an_address_that_is_plainly_of_inside_is_known_without_asking(host: str) -> None:
    assert is_refused_literal(parsed(f"http://{host}/"))


def test_names_and_public_addresses_are_judged_later() -> None:
    assert not is_refused_literal(parsed("https://example.com/"))
    assert not is_refused_literal(parsed("https://1.1.1.1/"))


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """A name server that gives these answers, one after the other, the last again and again; notes what is asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def answer(host: str, port: int, *args: Any, **more: Any) -> Any:
        if not host.endswith(".test"):
            return real(host, port, *args, **more)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        kind = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(kind[ip_address(one).version], socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked


def test_a_name_is_refused_if_any_of_its_addresses_is_of_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["93.184.216.34", "10.0.0.7"])
    with pytest.raises(AddressRefusedError):
        resolve("mixed.test", 443, private=False)
    assert resolve("mixed.test", 443, private=True) == ["93.184.216.34", "10.0.0.7"]


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "0177.0.0.1", "0"])
def test_odd_ways_to_write_this_machine_are_seen_through(host: str) -> None:
    assert Post(5, private=False).send(f"http://{host}:1/", {}, b"").reason in ("address_refused", "unresolved")


def told(receiver: Receiver, host: str) -> tuple[Answer, int]:
    """How a message to this host, at the receiver's port, is answered, and how many arrived."""
    answer = Post(5, private=False).send(receiver.url(host=host), {}, b"{}")
    return answer, len(receiver.messages)


def test_nothing_is_sent_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    with receiving() as receiver:
        for host in ("127.0.0.1", "localhost", "inside.test"):
            answer, arrived = told(receiver, host)
            assert (answer.reason, answer.status, arrived) == ("address_refused", None, 0)


def test_a_name_that_changes_its_address_after_the_check_gains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when it is judged, this machine a moment later. It is asked once only."""
    asked = resolving(monkeypatch, ["203.0.113.1"], ["127.0.0.1"])
    monkeypatch.setattr(addresses, "is_public", lambda address: not address.is_loopback)
    connected: list[Any] = []

    def refuse(address: Any, **_: Any) -> socket.socket:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    with receiving() as receiver:
        answer, arrived = told(receiver, "rebinding.test")
    assert (answer.reason, arrived, asked) == ("unreachable", 0, ["rebinding.test"])
    assert connected == ["203.0.113.1"]


def test_a_check_apart_from_the_connection_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual mistake: the name is judged, and then connected to by name."""
    resolving(monkeypatch, ["203.0.113.1"], ["127.0.0.1"])
    monkeypatch.setattr(addresses, "is_public", lambda address: not address.is_loopback)

    def judged_and_forgotten(host: str, port: int, *, private: bool) -> list[str]:
        resolve(host, port, private=private)
        return [host]

    monkeypatch.setattr(post, "resolve", judged_and_forgotten)
    with receiving() as receiver:
        answer, arrived = told(receiver, "rebinding.test")
    assert (answer.reason, arrived) == ("delivered", 1)


def test_a_name_that_nobody_knows_is_unresolved() -> None:
    assert Post(5, private=True).send("http://nowhere.invalid/", {}, b"").reason == "unresolved"
