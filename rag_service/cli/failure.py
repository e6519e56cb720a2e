"""What a command that did not succeed tells its user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Exit codes: 0 done, 1 the operation failed, 2 the command or the configuration cannot work as given.
FAILED = 1
MISUSED = 2


class CommandFailed(Exception):
    """What went wrong in one sentence, and what to do about it in another.

    `problem` is the service's own answer (RFC 9457), which `--json` passes on.
    """

    def __init__(
        self, message: str, fix: str = "", *, exit_code: int = FAILED, problem: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.exit_code = exit_code
        self.problem = problem
