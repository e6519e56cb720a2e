"""Blobs in a bucket that speaks S3: Amazon's, or that of a store such as MinIO, Ceph or Garage.

The client is written in Rust: calls are synchronous, leave the interpreter lock while they wait, and may come from any
thread. It repeats by itself what may pass (a lost connection, 5xx, 429), for as long as the time-out allows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING, TypeAlias, cast

from rag_service.blobs import StoredOwner, folder_of, gone, key_of, place_of
from rag_service.errors import RagError, RetryableError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, S3Config

Connect: TypeAlias = Callable[[], "ObjectStore"]

_STATUS = re.compile(r"status code: (\d{3})")
_RETRIES = 4
_RETRY_AFTER_S = 5
_REFUSED_AFTER_S = 30


def connect_to(
    bucket: str,
    prefix: str,
    *,
    endpoint: str | None = None,
    region: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    timeout_s: float = 30.0,
) -> Connect:
    """How to reach a bucket; nothing is connected yet.

    What is None comes from the usual AWS environment: AWS_* variables, a role of the container or of the machine.
    """
    given = {"endpoint": endpoint, "region": region, "access_key_id": access_key, "secret_access_key": secret_key}

    def connect() -> ObjectStore:
        from obstore.store import S3Store

        return S3Store(
            bucket,
            prefix=prefix or None,
            config=cast("S3Config", {key: value for key, value in given.items() if value is not None}),
            client_options={
                "allow_http": (endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=min(5.0, timeout_s)),
                "timeout": timedelta(seconds=timeout_s),
            },
            retry_config={
                "max_retries": _RETRIES,
                "retry_timeout": timedelta(seconds=timeout_s),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
        )

    return connect


class ObjectBlobs:
    """One object per blob, laid out as the local folder is."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect

    @cached_property
    def _store(self) -> ObjectStore:
        return self._connect()

    def put(self, owner: str, content: bytes) -> str:
        key = key_of(owner, content)
        # Written again where it is there: the answer of a store that lost it meanwhile would not be an answer.
        with _reported():
            self._store.put(place_of(key), content)
        return key

    def get(self, key: str) -> bytes:
        with _reported():
            try:
                return self._store.get(place_of(key)).bytes().to_bytes()
            except FileNotFoundError:
                raise gone(key) from None

    def has(self, key: str) -> bool:
        with _reported():
            try:
                self._store.head(place_of(key))
            except FileNotFoundError:
                return False
            return True

    def delete(self, owner: str) -> None:
        with _reported():
            for page in self._store.list(f"{folder_of(owner)}/"):
                self._store.delete([item["path"] for item in page])

    def owners(self) -> Iterator[StoredOwner]:
        with _reported():
            items = (item for page in self._store.list() for item in page)
            # A bucket lists in the order of names, so what belongs to one owner comes in one piece.
            for folder, held in groupby(items, key=lambda item: item["path"].rpartition("/")[0]):
                yield StoredOwner(folder.rpartition("/")[2], max(item["last_modified"] for item in held))

    def check(self) -> None:
        with _reported():
            next(iter(self._store.list(chunk_size=1)), None)


@contextmanager
def _reported() -> Iterator[None]:
    """The client's errors told as ours: all of them pass, once somebody has put right what they name."""
    from obstore.exceptions import BaseError

    try:
        yield
    except RagError:
        raise
    except (BaseError, OSError) as error:
        raise _told(error) from error


def _told(error: Exception) -> RetryableError:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    # A listing that is refused has a status in its text only.
    status = _STATUS.search(str(error))
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or (status and status[1] in ("401", "403")):
        return RetryableError(
            "The blob store refuses our credentials, or does not let them do this. Correct RAG_BLOBS_ACCESS_KEY and "
            "RAG_BLOBS_SECRET_KEY, or the rights of the role.",
            retry_after=_REFUSED_AFTER_S,
        )
    if isinstance(error, FileNotFoundError) or (status and status[1] == "404"):
        return RetryableError(
            "There is no bucket where RAG_BLOBS_URL says. Make it, or correct the setting.",
            retry_after=_REFUSED_AFTER_S,
        )
    return RetryableError("The blob store does not answer.", retry_after=_RETRY_AFTER_S)
