"""Every error of the service, named by what to do next; each states its HTTP status.

RagError                     500  a defect of ours
  FatalError                 500  stop, do not retry
    ConfigError              500  at start: correct the setting and start again
      CredentialsRefused     500  a service of others refused our key; somebody must renew it
    UnsupportedDocument      415  this document cannot be parsed; the code says why
      PoisonousDocument      415  it killed the process that parsed it
  RetryableError             503  back off, then try again; carries retry_after (seconds)
    QuotaExceeded            503  a service of others wants us to slow down
    RateLimited              429  ask less often; retry_after says when there is room again
  NotFound                   404  also for what exists but may not be seen
  NotAuthenticated           401  send a valid key
  NotPermitted               403  use a key with the scope named
  Conflict                   409  change the request or the state it collides with
    TooBusy                  409  the same again later; carries retry_after (seconds)
  LimitExceeded              413  send less
  ClientTooSlow              408  send the request faster
  InvalidRequest             422  correct the request

The docstring of an error is its default message. Its `error_class` says what a job does that meets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar


class ErrorClass(StrEnum):
    """What follows from a failure: how often and how soon the same work is worth another try."""

    TRANSIENT = "transient"  # a part does not answer: soon again
    QUOTA = "quota"  # a part is asked too often: again when it says so
    AUTH = "auth"  # a part refuses our credentials: somebody must renew them
    POISON = "poison"  # it killed the process that did it: again only to rule out bad luck
    PERMANENT = "permanent"  # the same again gives the same
    DEFECT = "defect"  # nobody foresaw it


class RagError(Exception):
    """Something went wrong on our side. Nothing was lost; try again, and report it if it repeats."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal_error"
    error_class: ClassVar[ErrorClass] = ErrorClass.PERMANENT

    def __init__(
        self, message: str | None = None, *, code: str | None = None, numbers: Mapping[str, object] | None = None
    ) -> None:
        """`numbers` are what the decision rests on, for programs."""
        super().__init__(message or " ".join((type(self).__doc__ or "").split()))
        self.code = code or self.default_code
        self.numbers = dict(numbers or {})

    @property
    def message(self) -> str:
        return str(self.args[0])


class FatalError(RagError):
    """This cannot succeed by trying again."""

    default_code = "fatal"


class ConfigError(FatalError):
    """The configuration cannot work. Correct the setting named here and start again."""

    default_code = "config_error"


class CredentialsRefused(ConfigError):
    """Another service refused our key. Renew it, then retry what failed."""

    default_code = "credentials_refused"
    error_class = ErrorClass.AUTH


class UnsupportedDocument(FatalError):
    """This document cannot be parsed. Convert it to a supported format and upload it again."""

    status = 415
    default_code = "unsupported_document"


class PoisonousDocument(UnsupportedDocument):
    """The document killed the process that parsed it. Convert it to another format and upload that."""

    default_code = "crashed"
    error_class = ErrorClass.POISON


class RetryableError(RagError):
    """A part of the service does not answer at the moment. Try again shortly."""

    status = 503
    default_code = "unavailable"
    error_class = ErrorClass.TRANSIENT

    def __init__(self, message: str | None = None, *, code: str | None = None, retry_after: int = 2) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class QuotaExceeded(RetryableError):
    """Another service that is needed for this answers no more for a while. Try again later."""

    default_code = "quota_exceeded"
    error_class = ErrorClass.QUOTA


class RateLimited(RetryableError):
    """There were too many requests of this kind. Wait for the seconds in Retry-After, then go on more slowly."""

    status = 429
    default_code = "rate_limited"


class NotFound(RagError):
    """There is nothing here under that id. Check the id, and that the key belongs to its team."""

    status = 404
    default_code = "not_found"


class NotAuthenticated(RagError):
    """No valid key was sent. Send `Authorization: Bearer <key>` with a key that is neither expired nor revoked."""

    status = 401
    default_code = "not_authenticated"


class NotPermitted(RagError):
    """This key may not do that. Use a key with the scope that the operation needs."""

    status = 403
    default_code = "not_permitted"


class Conflict(RagError):
    """The request collides with what is already there. Change one of the two and try again."""

    status = 409
    default_code = "conflict"


class TooBusy(Conflict):
    """There is too much going on here for this at the moment. Try again when there is less."""

    default_code = "too_busy"

    def __init__(
        self,
        message: str | None = None,
        *,
        code: str | None = None,
        numbers: Mapping[str, object] | None = None,
        retry_after: int = 60,
    ) -> None:
        super().__init__(message, code=code, numbers=numbers)
        self.retry_after = retry_after


class LimitExceeded(RagError):
    """The request is larger than the service accepts. Send less at once."""

    status = 413
    default_code = "limit_exceeded"


class ClientTooSlow(RagError):
    """The request did not arrive in time. Send it again over a faster connection, or send less at once."""

    status = 408
    default_code = "too_slow"


class InvalidRequest(RagError):
    """The request cannot be understood. Correct it as described and send it again."""

    status = 422
    default_code = "invalid_request"
