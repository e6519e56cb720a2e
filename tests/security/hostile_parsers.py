"""Parsers that do what a hostile document may bring a parser to do. Each is one attempt to reach beyond its process."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rag_service.types import ParsedDocument

HERE = "tests.security.hostile_parsers"


def types() -> dict[str, str]:
    """A made-up media type for each class below, for `ParserSandbox(extra_parsers=...)`."""
    return {f"test/{kind.__name__.lower()}": f"{HERE}:{kind.__name__}" for kind in Hostile.__subclasses__()}


class Hostile:
    media_types = frozenset({"test/hostile"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        return ParsedDocument(text=str(self.act(content)), parser="hostile 1")

    def act(self, content: bytes) -> object:
        raise NotImplementedError


class Sleep(Hostile):
    def act(self, content: bytes) -> object:
        time.sleep(float(content))
        return "slept"


class Burn(Hostile):
    """Uses the processor within native code that holds the interpreter's lock: no Python signal handler runs."""

    def act(self, content: bytes) -> object:
        return len(str(7 ** (10**9)))


class Allocate(Hostile):
    def act(self, content: bytes) -> object:
        return len(bytearray(20 * 1024**3))


class AllocateBitByBit(Hostile):
    """As a library does it, which then wraps what it met."""

    def act(self, content: bytes) -> object:
        held = []
        try:
            while True:
                held.append(bytearray(1024**2))
        except MemoryError as error:
            held.clear()
            raise ValueError("cannot render") from error


class KillItself(Hostile):
    def act(self, content: bytes) -> object:
        os.kill(os.getpid(), signal.SIGKILL)
        return "still here"


class Crash(Hostile):
    def act(self, content: bytes) -> object:
        return ctypes.string_at(0)


class Leave(Hostile):
    def act(self, content: bytes) -> object:
        os._exit(0)


class Print(Hostile):
    """Ten gigabytes, on both standard streams, by Python and by descriptor."""

    def act(self, content: bytes) -> object:
        noise = "spam" * (256 * 1024)
        for _ in range(int(content)):
            sys.stdout.write(noise)
            sys.stderr.write(noise)
            os.write(1, noise.encode())
        sys.stdout.flush()
        return "printed"


class LongText(Hostile):
    def act(self, content: bytes) -> object:
        return "x" * int(content)


class Secrets(Hostile):
    def act(self, content: bytes) -> object:
        return " ".join(sorted(os.environ)) + " " + " ".join(os.environ.values())


class Connect(Hostile):
    def act(self, content: bytes) -> object:
        with socket.socket() as plug:
            plug.settimeout(2)
            plug.connect(("127.0.0.1", int(content)))
        return "connected"


class ConnectNatively(Hostile):
    """Past Python's audit hook, by the C library: only the kernel can refuse."""

    def act(self, content: bytes) -> object:
        libc = ctypes.CDLL(None, use_errno=True)
        address = (2).to_bytes(2, sys.byteorder) + int(content).to_bytes(2, "big") + bytes([127, 0, 0, 1]) + bytes(8)
        done = libc.connect(libc.socket(2, 1, 0), address, len(address))
        if done != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "connected"


class Resolve(Hostile):
    def act(self, content: bytes) -> object:
        return socket.getaddrinfo("example.com", 80)


class StartProgram(Hostile):
    def act(self, content: bytes) -> object:
        return subprocess.run([sys.executable, "-c", "print(1)"], check=True)


class WriteOutside(Hostile):
    def act(self, content: bytes) -> object:
        return Path(content.decode()).write_text("mine now")


class WriteOutsideNatively(Hostile):
    def act(self, content: bytes) -> object:
        libc = ctypes.CDLL(None, use_errno=True)
        opened = libc.open(content, os.O_WRONLY | os.O_CREAT, 0o600)
        if opened < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        libc.write(opened, b"mine now", 8)
        return "written"


class Delete(Hostile):
    def act(self, content: bytes) -> object:
        return Path(content.decode()).unlink()


class WriteInside(Hostile):
    """Allowed: its own folder. Says where, and what it found there."""

    def act(self, content: bytes) -> object:
        folder = Path(tempfile.gettempdir())
        found = sorted(entry.name for entry in folder.iterdir())
        (folder / "left-behind").write_text("x")
        return f"{folder} {found}"


class ProcessId(Hostile):
    def act(self, content: bytes) -> object:
        return os.getpid()


class LieOnTheWire(Hostile):
    """Answers in the parser's stead: every open pipe gets nonsense in the form of a frame."""

    def act(self, content: bytes) -> object:
        for descriptor in range(3, 4096):  # the service that started it may have held many files open
            try:
                os.write(descriptor, content)
            except OSError:
                continue
        time.sleep(5)
        return "told"
