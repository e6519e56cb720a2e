"""Signatures of Standard Webhooks (https://www.standardwebhooks.com, specification 1.0, symmetric scheme v1).

The signature covers id, time and body, joined by dots. A receiver that checks it also drops repeats by their id and
refuses what is older than five minutes, so that nobody can send again what he overheard.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

PREFIX = "whsec_"
TOLERANCE_S = 300
_SECRET_BYTES = 32  # the specification wants 24 to 64


class SignatureError(ValueError):
    """The message was not sent by whoever has the secret, was changed on its way, or is old."""


def new_secret() -> str:
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(keys: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message, with a signature for each secret that is valid at the moment."""
    signatures = " ".join(signature(key, message_id, str(timestamp), body) for key in keys)
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": signatures}


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the HMAC-SHA256 in base64. Raises ValueError where `secret` is none."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("not a secret of a webhook") from None
    content = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def verify(secret: str, given: Mapping[str, str], body: bytes, *, now: float) -> str:
    """The id of a genuine message; `given` are its headers, their names in small letters, `now` is Unix time.

    Raises SignatureError.
    """
    try:
        message_id, timestamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        sent = int(timestamp)
    except (KeyError, ValueError):
        raise SignatureError("a header is missing or malformed") from None
    if abs(now - sent) > TOLERANCE_S:
        raise SignatureError("the message is too old, or the clocks differ")
    expected = signature(secret, message_id, timestamp, body).encode()
    if not any(hmac.compare_digest(expected, one.encode()) for one in signatures.split(" ")):
        raise SignatureError("no signature matches")
    return message_id
