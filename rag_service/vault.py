"""Credentials at rest: AES-256-GCM under a named key, bound to where they belong.

An envelope is {"key": id of the key, "ciphertext": base64 of nonce + ciphertext + tag}. What it is bound to is its
associated data (NIST SP 800-38D): an envelope that is copied to another place does not open there. Nonces are 96
random bits, good for 2^32 envelopes per key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

from rag_service.errors import ConfigError, Conflict

Envelope: TypeAlias = Mapping[str, str]

_KEY_BYTES = 32
_NONCE_BYTES = 12
_HOW = "Make one with: openssl rand -base64 32"


class Vault:
    """Seals under the newest key and opens under any.

    `load` gives the keys, newest first, when one is first needed. `make` gives them when something is to be sealed and
    there is none.
    """

    def __init__(self, load: Callable[[], Sequence[bytes]], make: Callable[[], Sequence[bytes]] = tuple) -> None:
        self._load = load
        self._make = make

    @cached_property
    def _keys(self) -> dict[str, bytes]:
        return _named(self._load())

    @property
    def newest(self) -> str:
        """Id of the key that seals. Raises Conflict when there is no key."""
        if not self._keys:
            self._keys = _named(self._make())
        if not self._keys:
            raise Conflict(
                f"The service has no key to keep credentials under. Set RAG_SECRET_KEYS. {_HOW}.", code="no_secret_key"
            )
        return next(iter(self._keys))

    def lacks(self, key_ids: Collection[str]) -> list[str]:
        """Of these keys, those that are not here."""
        return sorted(set(key_ids) - self._keys.keys())

    def seal(self, text: str, bound_to: str) -> Envelope:
        """Raises Conflict when there is no key."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        newest, nonce = self.newest, os.urandom(_NONCE_BYTES)
        sealed = AESGCM(self._keys[newest]).encrypt(nonce, text.encode(), bound_to.encode())
        return {"key": newest, "ciphertext": base64.b64encode(nonce + sealed).decode()}

    def open(self, envelope: Envelope, bound_to: str) -> str:
        """Raises ConfigError when the key is missing, or the envelope was changed or belongs elsewhere."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = self._keys.get(envelope["key"])
        if key is None:
            raise missing({"stored secrets": [envelope["key"]]})
        try:
            content = base64.b64decode(envelope["ciphertext"], validate=True)
            nonce, sealed = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
            return AESGCM(key).decrypt(nonce, sealed, bound_to.encode()).decode()
        except (InvalidTag, ValueError):
            raise ConfigError(
                "A stored credential cannot be opened: it was changed, or copied here from elsewhere. Set it again.",
                code="credential_unreadable",
            ) from None


def key_id(key: bytes) -> str:
    """What names a key and tells nothing of it."""
    return hashlib.sha256(b"rag-service secret key\0" + key).hexdigest()[:16]


def parse_keys(given: str) -> list[bytes]:
    """Keys of 32 bytes in base64 (also the URL-safe one), separated by commas or white space.

    Raises ConfigError, which never repeats what was given.
    """
    keys = []
    for place, word in enumerate(given.replace(",", " ").split(), start=1):
        try:
            key = base64.b64decode(word.replace("-", "+").replace("_", "/"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != _KEY_BYTES:
            raise ConfigError(f"RAG_SECRET_KEYS: key {place} is not 32 bytes in base64. {_HOW}.")
        keys.append(key)
    return keys


def new_key() -> str:
    """A key as `parse_keys` reads it."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def _named(keys: Sequence[bytes]) -> dict[str, bytes]:
    return {key_id(key): key for key in keys}


def missing(lacking: Mapping[str, Sequence[str]]) -> ConfigError:
    """What cannot be opened, with the ids of the keys that it is encrypted under."""
    ids = sorted({key for keys in lacking.values() for key in keys})
    return ConfigError(
        f"{' and '.join(lacking).capitalize()} are encrypted under a key that this service does not have (key id "
        f"{', '.join(ids)}). Add that key to RAG_SECRET_KEYS, or put back secret.key into the data folder. "
        "If it is lost: rag admin rotate-secrets --drop-unreadable.",
        code="secret_key_missing",
    )
