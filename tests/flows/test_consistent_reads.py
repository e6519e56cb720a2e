"""While documents are replaced, a reader sees one version of each, whole, and never none."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.conftest import Team

DOCUMENTS = 10
ROUNDS = 50
SECTIONS = 4


def text_of(document: int, version: int) -> str:
    sections = [
        f"## Part {part}\n\nshared words, edition{version}edition, {'filler ' * 150}" for part in range(SECTIONS)
    ]
    return f"# Document {document}\n\n" + "\n\n".join(sections)


def read_until(done: threading.Event, team: Team, mixed: list[Any], reads: list[int]) -> None:
    client = team.client("manage")
    while not done.is_set():
        seen: dict[str, set[int]] = {}
        answer = client.post("/v1/retrieve", json={"query": "shared words", "top_k": 100})
        if answer.status_code != 200:
            mixed.append(answer.text)
        for result in answer.json().get("results", []):
            seen.setdefault(result["external_id"], set()).add(result["provenance"]["version"])
        mixed += [(name, versions) for name, versions in seen.items() if len(versions) > 1]
        if len(seen) < DOCUMENTS:
            mixed.append(f"only {sorted(seen)} were found")
        reads.append(len(seen))


@pytest.mark.slow
def test_five_hundred_updates_never_show_two_versions_of_one_document(team: Team) -> None:
    def put(version: int) -> None:
        for document in range(DOCUMENTS):
            team.put(text_of(document, version), external_id=f"doc-{document}")

    put(0)
    team.drain()
    mixed: list[object] = []
    reads: list[object] = []
    done = threading.Event()
    reader = threading.Thread(target=read_until, args=(done, team, mixed, reads))
    reader.start()
    for version in range(1, ROUNDS + 1):
        put(version)
        if version % 10 == 0:
            team.drain()
    team.drain()
    done.set()
    reader.join()
    assert mixed == []
    assert len(reads) > 20
    found = team.retrieve("shared words", top_k=100)
    assert {result["provenance"]["version"] for result in found} == {ROUNDS + 1}
