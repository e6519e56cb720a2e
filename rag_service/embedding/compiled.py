"""The forward pass as a compiled graph (OpenVINO): one call without the interpreter lock, and no torch in the process.

Torch gives up the lock at each of its hundred steps and computes a short query in three times the time (10 ms against
3 ms, MiniLM on two cores). The graph is made once per model by a child process that also compares it with the model.
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rag_service.embedding.batching import Tokens, padded, rounded_up
from rag_service.embedding.processors import NumberFormat, usual_formats
from rag_service.errors import ConfigError

if TYPE_CHECKING:
    import openvino

log = logging.getLogger(__name__)

_CONVERSION_TIMEOUT_S = 600
_GRAPH = "model.xml"
_REFUSED = "refused.txt"
# Code is made anew for every shape of input (12 ms for one short text, 3 ms from then on): lengths are rounded up. Each
# token more costs a question 0.08 ms, so those of a usual length, whose code is there from the start, least.
STEP_OF_USUAL = 4
USUAL = 64
STEP = 16
# Inputs that share a scale in int8, of weights and of what they are multiplied by. With 64 it is 8 % slower.
GROUP = 128
# By itself the library ties its threads to the first cores there are, and those of every other process to the same: two
# that computed questions by one thread each, on two cores, took 7.3 ms for one instead of 3.1.
_ON_ANY_CORE = {"ENABLE_CPU_PINNING": "NO"}
# The library's first run in a process fills a table, and two threads that do so wait for each other for ever.
_FIRST_RUN = threading.Lock()


class CompiledNetwork:
    """Runs the graph in `folder` (made by `compiled_folder`) on up to `slices` slices at a time.

    One slice at a time is computed by all `threads`, and is there soonest. Several are each computed by threads of
    their own, which wait for nobody: with two threads that is a quarter more texts per second where it was measured.
    """

    def __init__(
        self,
        folder: Path,
        dtype: NumberFormat,
        padding: int,
        max_tokens: int,
        *,
        threads: int | None,
        slices: int = 1,
    ) -> None:
        import openvino  # loads native libraries, and cutting texts needs none of them

        options = computing_options(dtype)
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = str(threads)
        options |= {"NUM_STREAMS": str(slices)} if slices > 1 else {"PERFORMANCE_HINT": "LATENCY"}
        try:
            model = openvino.Core().compile_model(str(folder / _GRAPH), "CPU", options)
        except RuntimeError as error:
            raise ConfigError(
                f"The compiled model in {folder} cannot be loaded ({error}). Delete the folder, or set "
                "RAG_EMBEDDING_RUNTIME=torch."
            ) from error
        self._padding = padding
        self._max_tokens = max_tokens
        self._model = model
        self._idle: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        self.dimensions = int(model.output(0).get_partial_shape()[1].get_length())
        with _FIRST_RUN:
            self.forward([[padding]])

    def forward(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Unit vectors of n texts given as token ids with special tokens, shape (n, dimensions)."""
        longest = max(map(len, texts))
        step = STEP_OF_USUAL if len(texts) == 1 and longest <= USUAL else STEP
        # A model that reads a fixed number of tokens cannot be given more of them, padding or not.
        step = step if rounded_up(longest, step) <= self._max_tokens else 1
        request = self._request()
        try:
            request.start_async(list(padded(texts, self._padding, step)), share_inputs=True)
            request.wait()
            vectors: NDArray[np.float32] = request.get_output_tensor(0).data.astype(np.float32, copy=True)
        finally:
            self._idle.put(request)
        return vectors

    def _request(self) -> openvino.InferRequest:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._model.create_infer_request()


def computing_options(number_format: NumberFormat) -> dict[str, str]:
    """What tells the library to compute in `number_format`, in int8 all but products in the format next to it, and on
    any core.
    """
    if number_format == "int8":
        return computing_options(usual_formats()[-1]) | {"DYNAMIC_QUANTIZATION_GROUP_SIZE": str(GROUP)}
    return {"INFERENCE_PRECISION_HINT": "bf16" if number_format == "bfloat16" else "f32"} | _ON_ANY_CORE


def compiled_folder(model: Path, digest: str, dtype: NumberFormat, cache: Path) -> Path | None:
    """The folder of the compiled graph of a model, made now if the cache has none; None where it cannot be made.

    `digest` names the weights. A graph whose vectors are not those of the model (cosine below 0.999) is not kept; the
    reason stays in the folder, so that the attempt is not repeated at every start. A cache that came with an image may
    lie where nothing can be written: what it does not hold cannot be had.
    """
    import openvino

    folder = cache / f"{digest[:16]}-{dtype}-openvino-{openvino.__version__.split('-')[0]}"
    try:
        if not folder.is_dir():
            _make(model, dtype, folder)
    except OSError as error:
        log.warning("the embedding model cannot be compiled into %s: %s", folder, error)
        return None
    if (folder / _GRAPH).is_file():
        return folder
    log.warning("the embedding model is not computed in %s: %s says why", dtype, folder / _REFUSED)
    return None


def _make(model: Path, dtype: NumberFormat, folder: Path) -> None:
    """Make `folder` unless another process does so meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _convert(model, dtype, folder)


def _convert(model: Path, dtype: NumberFormat, folder: Path) -> None:
    """Make `folder` as a whole or not at all, with the graph or with the reason why there is none."""
    making = folder.with_name("making")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    graph = making / _GRAPH
    command = [sys.executable, "-m", "rag_service.embedding.conversion", str(model), str(graph), dtype]
    try:
        done = subprocess.run(  # noqa: S603 - our own module, on paths of ours
            command, capture_output=True, text=True, timeout=_CONVERSION_TIMEOUT_S, check=False
        )
        refused = (done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else None
    except subprocess.TimeoutExpired:
        refused = f"The conversion took more than {_CONVERSION_TIMEOUT_S} s."
    if refused is not None:
        for file in making.iterdir():
            file.unlink()
        (making / _REFUSED).write_text(refused, encoding="utf-8")
    making.rename(folder)
