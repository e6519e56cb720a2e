"""The comparison: every peer is measured alike, a failing one is listed, and a leaking one is no result."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.peers.__main__ import GROUPS, PEERS, made, measured
from benchmarks.peers.base import Passage, Peer
from rag_service.embedding.model_folder import find_model

ROOT = Path(__file__).parents[2]
SUBJECTS = ("whales", "bread", "violins", "volcanoes", "tax law", "chess", "bicycles", "orchids", "glaciers", "poetry")
PASSAGES = [
    Passage(f"d{n}", f"All there is to know about {subject}, told at length.", (f"g{n}",))
    for n, subject in enumerate(SUBJECTS)
]
QUESTIONS = {f"q{n}": f"tell me about {subject}" for n, subject in enumerate(SUBJECTS)}
GRADES = {f"q{n}": {f"d{n}": 1.0} for n in range(len(SUBJECTS))}


class InOrder:
    """Finds passages by shared words, in the order of their number."""

    name, version = "in order", "1"

    def ingest(self, passages: Sequence[Passage]) -> None:
        self.passages = list(passages)

    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        readable = [each for each in self.passages if groups is None or not set(groups).isdisjoint(each.groups)]
        shared = {each.id: len(set(query.split()) & set(each.text.replace(",", "").split())) for each in readable}
        return sorted(shared, key=lambda each: (-shared[each], each))[:k]

    def close(self) -> None:
        self.closed = True


class Leaking(InOrder):
    def search(self, query: str, k: int, groups: Sequence[str] | None) -> list[str]:
        return super().search(query, k, None)


def test_a_peer_is_measured_with_and_without_the_question_of_access() -> None:
    peer = InOrder()
    row = measured("in order", lambda: peer, PASSAGES, QUESTIONS, GRADES)
    assert row["ndcg"] == 1
    assert {"docs_s", "p50_ms", "p95_ms", "p50_acl_ms", "p95_acl_ms", "requests_s", "requests_s_acl"} < row.keys()
    assert peer.closed


def test_a_peer_that_cannot_be_made_is_listed_with_the_reason() -> None:
    row = measured("gone", lambda: made("benchmarks.peers.gone:Gone", ""), PASSAGES, QUESTIONS, GRADES)
    assert row == {"peer": "gone", "failed": "ModuleNotFoundError: No module named 'benchmarks.peers.gone'"}


def test_a_filter_that_lets_everything_through_is_no_result() -> None:
    row = measured("leaking", Leaking, PASSAGES, QUESTIONS, GRADES)
    assert "may read" in row["failed"]


def test_what_the_peers_are_pinned_to_is_what_the_service_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {}
    for line in (ROOT / "benchmarks" / "peers" / "constraints.txt").read_text().splitlines():
        name, _, version = line.partition("==")
        pins[canonicalize_name(name)] = version
    for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["bench-peers"]):
        version = pins[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(version), f"{wanted} cannot be had with {version}"


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_each_peer_answers_and_filters(name: str) -> None:
    pytest.importorskip("txtai", reason="comes with the extra `bench-peers`")
    peer: Peer = made(PEERS[name], str(find_model("all-MiniLM-L6-v2")))
    try:
        peer.ingest(PASSAGES)
        assert peer.search("playing the violin", 3, None)[0] == "d2"
        found = peer.search("playing the violin", 3, GROUPS)
        assert found
        assert set(found) <= {"d1", "d4", "d7"}
    finally:
        peer.close()
