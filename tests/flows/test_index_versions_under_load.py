"""While everything is in use: a switch gets there though documents are written all the time, and nobody notices."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from rag_service.embedding.hashing import HashingEmbedder
from rag_service.ingest import builder
from tests.churn import NAMES, churning, questions, text_of
from tests.conftest import Service, Team
from tests.index_builds import WIDER, Version, active, ask, begin, faults, look

_LONGEST_SWITCH_S = 30.0


@dataclass
class Asker:
    """Asks all the time; each answer has to be whole and of one index version."""

    team: Team
    asked: int = 0
    seen: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        for question in questions(100_000):
            if self._stop.wait(0.02):
                return
            answer = self.team.manager.post("/v1/retrieve", json={"query": question, "top_k": 10})
            if answer.status_code != 200:
                self.wrong.append(answer.text)
                continue
            indexes = {hit["provenance"]["index_version"] for hit in answer.json()["results"]}
            self.asked += 1
            self.seen |= indexes
            if len(indexes) != 1:
                self.wrong.append(f"{question}: from {len(indexes)} index versions")


@contextmanager
def asking(team: Team) -> Iterator[Asker]:
    asker = Asker(team)
    thread = threading.Thread(target=asker.run)
    thread.start()
    try:
        yield asker
    finally:
        asker._stop.set()
        thread.join()


def wait_for(team: Team, index: str, state: str, timeout: float = 120) -> Version:
    deadline = time.monotonic() + timeout
    while (found := look(team, index))["state"] != state:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def fill(team: Team, texts: list[str]) -> None:
    documents = [
        {"text": text, "external_id": NAMES[n] if n < len(NAMES) else f"more-{n}", "acl": {"public": True}}
        for n, text in enumerate(texts)
    ]
    answer = team.manager.post("/v1/documents:batch", json={"documents": documents})
    assert answer.status_code == 200, answer.text
    team.drain()


def test_a_collection_that_is_written_to_all_the_time_is_switched_there_and_back(service: Service, team: Team) -> None:
    fill(team, [text_of(n) for n in range(len(NAMES))])
    former = active(team)["id"]
    with asking(team) as asker, churning(team, seed=3) as churn:
        made = begin(team)["id"]
        wait_for(team, made, "ready")
        times = [timed(team, made, "promote"), timed(team, made, "rollback"), timed(team, made, "promote")]
    assert max(times) < _LONGEST_SWITCH_S
    assert churn.done > 10
    assert asker.wrong == []
    assert asker.asked > 10
    assert asker.seen == {former, made}
    team.drain(120)
    assert faults(service, team, made) == faults(service, team, former) == []


def timed(team: Team, index: str, action: str) -> float:
    began = time.monotonic()
    ask(team, index, action)
    return time.monotonic() - began


class Clock:
    """A clock that only the model's work moves: what else a busy machine does takes no time on it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_the_time_that_is_left_is_right_within_a_quarter(
    service: Service, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents of very different sizes, the larger ones towards the end, and times that scatter."""
    dice, clock = random.Random(4), Clock()
    sizes = [dice.randint(1, 3 if n < 20 else 6) for n in range(40)]
    fill(team, ["\n\n".join(text_of(100 * n + k) for k in range(size)) for n, size in enumerate(sizes)])
    embed, foretold = HashingEmbedder.embed, list[tuple[float, float]]()

    def slowly(embedder: HashingEmbedder, texts: Any, kind: Any) -> Any:
        clock.now += (0.1 + 0.05 * len(texts)) * dice.uniform(0.7, 1.3)
        if made and (eta := look(team, made[0])["progress"]["eta_s"]) is not None:
            foretold.append((clock.now, eta))
        return embed(embedder, texts, kind)

    made: list[str] = []
    monkeypatch.setattr(HashingEmbedder, "embed", slowly)
    monkeypatch.setattr(builder, "time", clock)
    made.append(begin(team, WIDER)["id"])
    wait_for(team, made[0], "ready")
    late = [(at, eta) for at, eta in foretold if 12 < len([one for one, _ in foretold if one <= at]) < 32]
    assert len(late) > 10
    # The document at hand is counted among those that are left, and so is its time.
    assert all(eta == pytest.approx(clock.now - at, rel=0.25, abs=0.6) for at, eta in late), late
