"""Where a webhook may lead: public addresses only, so that nobody reaches what only this machine can reach.

A name is resolved once, every address that it has is judged, and the connection goes to one of those very addresses: a
name that resolves to another address a moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

Address: TypeAlias = IPv4Address | IPv6Address

MOST_URL = 2_048
_SCHEMES = {"http": 80, "https": 443}
# IPv6 prefixes whose last 32 bits are an IPv4 address that a gateway passes on to (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")
# All that is routed of IPv6 (IANA, IPv6 Global Unicast Address Assignments).
_UNICAST = IPv6Network("2000::/3")
# What `is_global` takes for public though the special-purpose registries of IANA do not, or is no longer in use; and
# the wire server of Azure, which answers inside of each machine of that cloud with the machine's secrets.
_NOT_PUBLIC = tuple(
    map(
        ip_network,
        (
            "168.63.129.16/32",
            "192.0.0.0/24",
            "192.88.99.0/24",
            "2001::/23",
            "3fff::/20",
        ),
    )
)


class AddressRefusedError(Exception):
    """The name leads to an address that is not public."""


def parsed(url: str) -> SplitResult:
    """Raises ValueError with what is wrong: never with the address itself, which may hold a secret."""
    if len(url) > MOST_URL or any(ord(letter) <= 32 or ord(letter) == 127 for letter in url):
        raise ValueError("the address is too long, or contains blanks or control characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
        host = (parts.hostname or "").encode("idna")
    except ValueError:
        raise ValueError("this is no address such as https://example.com/hook") from None
    if parts.scheme not in _SCHEMES or not host:
        raise ValueError("the address begins with https:// or http:// and names a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("the address holds no user, password or fragment")
    if not url.isascii():
        raise ValueError("the address is plain ASCII: write its host in punycode and the rest in percent signs")
    return parts


def port_of(parts: SplitResult) -> int:
    return parts.port or _SCHEMES[parts.scheme]


def is_refused_literal(parts: SplitResult) -> bool:
    """Whether the host is written as an address that is not public. A name is judged when it is resolved."""
    try:
        return not is_public(ip_address(parts.hostname or ""))
    except ValueError:
        return (parts.hostname or "").lower().rstrip(".").rpartition(".")[2] == "localhost"


def resolve(host: str, port: int, *, private: bool) -> Sequence[str]:
    """The addresses of a host. Raises AddressRefusedError if any of them is not public, unless `private` ones may be;
    OSError if it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    if not private and not all(is_public(ip_address(address.partition("%")[0])) for address in addresses):
        raise AddressRefusedError
    return addresses


def is_public(address: Address) -> bool:
    """Whether an address is reachable from anywhere, and so no secret of this network."""
    if isinstance(address, IPv6Address):
        inner = IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else address.ipv4_mapped
        inner = inner or address.sixtofour
        if inner is not None:
            return is_public(inner)
        if address not in _UNICAST:
            return False
    usual = address.is_global and not (address.is_multicast or address.is_reserved)
    return usual and not any(address in network for network in _NOT_PUBLIC)
