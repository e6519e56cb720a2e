"""What this process needs, looked at all at once and for a bounded time: a part that hangs hides no other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from rag_service.errors import RagError

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0


@dataclass
class _Look:
    done: threading.Event = field(default_factory=threading.Event)
    problem: str | None = None


class Readiness:
    """`checks` raise what is wrong. Each runs in a thread of its own, and never twice at a time."""

    def __init__(self, checks: Mapping[str, Callable[[], object]], patience_s: float = _PATIENCE_S) -> None:
        self._checks = checks
        self._patience_s = patience_s
        self._under_way: dict[str, _Look] = {}
        self._lock = threading.Lock()

    def parts(self) -> dict[str, str | None]:
        """Each part with what is wrong with it (None: nothing), after `patience_s` seconds at the latest."""
        until = time.monotonic() + self._patience_s
        looks = {name: self._begin(name) for name in self._checks}
        return {name: self._outcome(look, until) for name, look in looks.items()}

    def _begin(self, name: str) -> _Look:
        with self._lock:
            look = self._under_way.get(name)
            if look is None or look.done.is_set():
                look = self._under_way[name] = _Look()
                threading.Thread(target=self._run, args=(name, look), name=f"ready-{name}", daemon=True).start()
            return look

    def _run(self, name: str, look: _Look) -> None:
        try:
            self._checks[name]()
        except RagError as error:
            look.problem = error.message
        except Exception as error:
            log.exception("looking whether %s is ready failed", name)
            look.problem = f"It cannot be looked at ({type(error).__name__}). See the log."
        finally:
            look.done.set()

    def _outcome(self, look: _Look, until: float) -> str | None:
        if look.done.wait(max(0.0, until - time.monotonic())):
            return look.problem
        return f"It has not answered for {self._patience_s:g} seconds."
