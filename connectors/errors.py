"""What a connector may raise, named by what to do next. `error_class` says how a sync that met it goes on.

SourceError
  FatalSourceError         permanent  stop this sync; somebody must change the configuration
    UnauthorizedSourceError  auth     stop this sync; somebody must renew the credentials
  RetryableSourceError     transient  stop this sync; try again later from the last checkpoint
    ThrottledSourceError     quota    the same, but not before `retry_after` seconds
  SkippableItemError       permanent  leave this one item out, with the reason on record; go on
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

SourceErrorClass: TypeAlias = Literal["transient", "quota", "auth", "permanent"]


class SourceError(Exception):
    """The source could not be read."""

    error_class: ClassVar[SourceErrorClass] = "permanent"

    def __init__(self, message: str | None = None, *, code: str = "source_error") -> None:
        super().__init__(message or type(self).__doc__)
        self.code = code


class FatalSourceError(SourceError):
    """The source cannot be read with this configuration. Correct it and sync again."""


class UnauthorizedSourceError(FatalSourceError):
    """The source refused the credentials. Renew them and sync again."""

    error_class: ClassVar[SourceErrorClass] = "auth"

    def __init__(self, message: str | None = None, *, code: str = "source_unauthorized") -> None:
        super().__init__(message, code=code)


class RetryableSourceError(SourceError):
    """The source does not answer at the moment. The sync will be tried again."""

    error_class: ClassVar[SourceErrorClass] = "transient"


class ThrottledSourceError(RetryableSourceError):
    """The source wants to be asked less often. The sync goes on when it allows it."""

    error_class: ClassVar[SourceErrorClass] = "quota"

    def __init__(
        self, message: str | None = None, *, code: str = "source_throttled", retry_after: float = 60.0
    ) -> None:
        """`retry_after`: seconds that the source asked us to wait."""
        super().__init__(message, code=code)
        self.retry_after = retry_after


class SkippableItemError(SourceError):
    """This item cannot be read. It is skipped; the others go on."""
