"""The variants that the blob-store contract runs over; the bucket is served by a real server that checks signatures."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from rag_service.blobs import BlobStore, LocalBlobs
from rag_service.blobs.objects import Connect, ObjectBlobs, connect_to

ACCESS_KEY, SECRET_KEY = "testing-access-key", "testing-secret-key"


@dataclass
class BucketServer:
    """An S3 server over the folder `root`, whose sub-folders are its buckets. It can be stopped and started again."""

    root: Path
    port: int
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(
        self, bucket: str = "blobs", prefix: str = "", *, secret: str = SECRET_KEY, timeout_s: float = 5
    ) -> Connect:
        return connect_to(
            bucket,
            prefix,
            endpoint=self.url,
            region="us-east-1",
            access_key=ACCESS_KEY,
            secret_key=secret,
            timeout_s=timeout_s,
        )

    def start(self) -> None:
        command = [_rclone(), "serve", "s3", "--addr", f"127.0.0.1:{self.port}", "--config", "/dev/null"]
        keys = ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        self._process = subprocess.Popen([*command, *keys, str(self.root)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None, "the S3 server has ended"
            assert time.monotonic() < deadline, "the S3 server does not start"
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def _rclone() -> str:
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        pytest.skip("rclone, which serves the bucket, is not installed")
    return found


@contextmanager
def bucket_server(root: Path) -> Iterator[BucketServer]:
    (root / "blobs").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = BucketServer(root, free.getsockname()[1])
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BucketServer]:
    with bucket_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["local", "shared folder", "memory", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    match request.param:
        case "local":
            return LocalBlobs(tmp_path / "blobs")
        case "shared folder":
            return LocalBlobs(tmp_path, shared=True)
        case "memory":
            memory = MemoryStore()
            return ObjectBlobs(lambda: memory)
        case _:
            server: BucketServer = request.getfixturevalue("bucket")
            return ObjectBlobs(server.connect(prefix=f"rag/{tmp_path.name}"))
