"""One parser process as the service sees it: started, asked, ended."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag_service.parsing.frames import READY, receive, send

_MAX_HEAD_BYTES = 64 * 1024 * 1024


class ParserProcess:
    """A child process and its three pipes. The parent's ends do not block, so that a deadline holds on them."""

    def __init__(
        self,
        timeout_s: float,
        memory_bytes: int,
        max_text_bytes: int,
        extra: Mapping[str, str],
        scratch: Path | None = None,
    ) -> None:
        self._ending = threading.Lock()
        self._max_text_bytes = max_text_bytes
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.mkdtemp(prefix="rag-parser-", dir=scratch)
        requests, self._requests = os.pipe()
        self._replies, replies = os.pipe()
        lifeline, self._lifeline = os.pipe()
        theirs = (requests, replies, lifeline)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with our own arguments
                [
                    sys.executable, "-P", "-W", "ignore", "-m", "rag_service.parsing.child",
                    f"--requests={requests}", f"--replies={replies}", f"--lifeline={lifeline}",
                    f"--folder={self._folder}", f"--timeout={timeout_s}", f"--memory-bytes={memory_bytes}",
                    f"--max-text={max_text_bytes}", *(f"--extra={kind}={place}" for kind, place in extra.items()),
                ],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=theirs, cwd=self._folder, env=_environment(self._folder),
                start_new_session=True,  # Ctrl-C in the terminal is for the service, which then ends its children
            )  # fmt: skip
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        for descriptor in (self._requests, self._replies):
            os.set_blocking(descriptor, False)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until_ready(self, deadline: float) -> None:
        receive(self._replies, len(READY), deadline)

    def ask(self, content: bytes, name: str, media_type: str | None, deadline: float) -> tuple[dict[str, Any], bytes]:
        """The reply's head and text. Raises WireBroken, WireTimeout, FrameTooLarge; ValueError for nonsense."""
        request = json.dumps({"name": name, "media_type": media_type}).encode()
        send(self._requests, (request, content), deadline)
        head = json.loads(receive(self._replies, _MAX_HEAD_BYTES, deadline))
        text = receive(self._replies, self._max_text_bytes, deadline)
        if not isinstance(head, dict):
            raise ValueError("the reply is no object")
        return head, text

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> int:
        """Kill it if it still runs, forget its folder and pipes; the exit status, negative for a signal."""
        with self._ending:
            if self._process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.2)  # one that died of its document says how, when it is given the time
                self.kill()
            status = self._process.wait()
            for descriptor in (self._requests, self._replies, self._lifeline):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            shutil.rmtree(self._folder, ignore_errors=True)
            return status


def _environment(folder: str) -> dict[str, str]:
    """Nothing of ours but where modules are: no key, no address of a service reaches a parser."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT") if name in os.environ}
    return kept | {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(entry) for entry in sys.path),  # noqa: PTH100 - '' is the cwd here
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
        "HOME": folder,
        "TMPDIR": folder,
        "LC_ALL": "C.UTF-8",
        # One thread per child, and small arenas: both count as address space.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
        # unstructured reports its use to its makers unless told not to.
        "DO_NOT_TRACK": "1",
        "SCARF_NO_ANALYTICS": "1",
        "UNSTRUCTURED_DISABLE_NOTICE": "1",
    }
