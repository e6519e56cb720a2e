"""What a connector may raise, named by what to do next.

SourceError
  FatalSourceError      stop this sync; somebody must change the configuration
  RetryableSourceError  stop this sync; try again later from the last checkpoint
  SkippableItemError    leave this one item out, with the reason on record; go on
"""

from __future__ import annotations


class SourceError(Exception):
    """The source could not be read."""

    def __init__(self, message: str | None = None, *, code: str = "source_error") -> None:
        super().__init__(message or type(self).__doc__)
        self.code = code


class FatalSourceError(SourceError):
    """The source cannot be read with this configuration. Correct it and sync again."""


class RetryableSourceError(SourceError):
    """The source does not answer at the moment. The sync will be tried again."""


class SkippableItemError(SourceError):
    """This item cannot be read. It is skipped; the others go on."""
