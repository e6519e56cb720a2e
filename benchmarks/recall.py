"""What a dense question ought to find: every vector compared with it, one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag_service.chunking.base import embedded_text

Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float32]]
_AT = 10
_BATCH = 256
_QUESTIONS = 50
# Two cosines nearer than this are equal: either passage is as good as the other.
_SAME = 1e-4


class Exact:
    """`passages` are (document, text) of all documents that say `fixed` of themselves."""

    def __init__(self, passages: Sequence[tuple[str, str]], embed: Embed, seed: int = 3) -> None:
        self._embed = embed
        texts = [embedded_text(name, (), text) for name, text in passages]
        parts = [embed(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
        self._vectors = np.concatenate(parts)
        self._places = {passage: place for place, passage in enumerate(passages)}
        chance = random.Random(seed)
        chosen = chance.sample(list(passages), min(_QUESTIONS, len(passages)))
        self._questions = [" ".join(text.split()[:12]) for _, text in chosen]

    def recall(self, ask: Callable[[dict[str, Any]], Mapping[str, Any]]) -> float:
        """Of the ten nearest passages the share found, mean over the questions."""
        found = []
        for question in self._questions:
            body = {"query": question, "mode": "dense", "top_k": _AT, "filter": {"fixed": True}}
            results = ask({**body, "operators": "off"})["results"]
            found.append(self.share(question, [(hit["external_id"], hit["text"]) for hit in results]))
        return round(float(np.mean(found)), 4)

    def share(self, question: str, found: Sequence[tuple[str, str]]) -> float:
        """How many of `found` are among the ten nearest; one that is as near as the tenth is."""
        near = self._vectors @ self._embed([question])[0]
        wanted = min(_AT, len(near))
        tenth = float(np.partition(near, -wanted)[-wanted])
        good = [
            passage for passage in found if passage in self._places and near[self._places[passage]] >= tenth - _SAME
        ]
        return min(1.0, len(good) / wanted)
