"""Questions and writes at a steady rate against a service that may be killed and started again meanwhile."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.killable import Killable
from benchmarks.ledger import PUBLIC, Faults, Ledger

GROUPS = tuple(f"g{number}" for number in range(5))
_CLIENTS = 12
_WRITERS = 4


@dataclass
class Traffic:
    """`words` are those that documents are made of; documents named `fixed-...` are never changed."""

    service: Killable
    ledger: Ledger
    words: Sequence[str]
    changing: list[str]
    faults: Faults = field(default_factory=Faults)
    latencies: list[tuple[float, float]] = field(default_factory=list)  # (when, milliseconds)
    written: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(11))
    _new: int = 0

    def start(self, questions_s: float, writes_s: float) -> None:
        for work, rate, threads in ((self._ask, questions_s, _CLIENTS), (self._write, writes_s, _WRITERS)):
            thread = threading.Thread(target=self._steadily, args=(work, rate, threads), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _steadily(self, work: Callable[[], None], rate: float, threads: int) -> None:
        """Sends on schedule, whether or not earlier answers have come, as many at a time as there are threads."""
        if not rate:
            return
        with ThreadPoolExecutor(threads) as pool:
            due = time.monotonic()
            while not self._stop.is_set():
                pool.submit(self._guarded, work)
                due += 1 / rate
                time.sleep(max(0.0, due - time.monotonic()))

    def _guarded(self, work: Callable[[], None]) -> None:
        began = time.monotonic()
        try:
            work()
        except (httpx.HTTPError, httpx.StreamError) as error:
            down = self.service.was_down(began)
            self.faults.note("while_down" if down else "errors", "" if down else repr(error)[:200])

    def _ask(self) -> None:
        group = self._chance.choice(GROUPS)
        query = " ".join(self._chance.choices(self.words, k=4))
        body = {"query": query, "as_user": {"user": "somebody", "groups": [group]}, "top_k": 10}
        began = time.monotonic()
        answer = self.service.http.post("/v1/retrieve", json=body)
        answer.raise_for_status()
        ended = time.monotonic()
        self.latencies.append((began, (ended - began) * 1000))
        self.faults.judge(answer.json()["results"], self.ledger, group, (began, ended))

    def _write(self) -> None:
        """A new text, another reader, a new document or a deletion."""
        kind = self._chance.choices(("text", "reader", "new", "gone"), weights=(4, 3, 2, 1))[0]
        if kind == "new":
            self._new += 1
            name, reader = f"new-{self._new}", self._chance.choice((*GROUPS, PUBLIC))
            self.put(name, reader)
            self.changing.append(name)
            return
        try:  # nobody else writes this one meanwhile
            name = self.changing.pop(self._chance.randrange(len(self.changing)))
        except (IndexError, ValueError):
            return
        if kind != "gone":
            kept = self.ledger.of(name) if kind == "text" else None
            self.put(name, kept or self._chance.choice((*GROUPS, PUBLIC)))
            self.changing.append(name)
        else:
            self._delete(name)

    def put(self, name: str, reader: str) -> None:
        document = {"external_id": name, "acl": acl(reader), "text": text(self._chance, self.words, 1)}
        state = self.ledger.sent(name, reader)
        self.service.http.post("/v1/documents", json=document).raise_for_status()
        self.ledger.acknowledged(name, state)
        self.written += 1

    def _delete(self, name: str) -> None:
        listed = self.service.http.get("/v1/documents", params={"external_id": name}).raise_for_status().json()["data"]
        if listed:
            state = self.ledger.sent(name, None)
            self.service.http.delete(f"/v1/documents/{listed[0]['id']}").raise_for_status()
            self.ledger.acknowledged(name, state)
            self.written += 1


def acl(reader: str) -> dict[str, Any]:
    return {"public": True} if reader == PUBLIC else {"groups": [reader]}


def text(chance: random.Random, words: Sequence[str], chunks: int) -> str:
    """Paragraphs of a chunk each."""
    return "\n\n".join(" ".join(chance.choices(words, k=90)) for _ in range(chunks))
