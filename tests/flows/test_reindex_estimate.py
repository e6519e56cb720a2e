"""What a dry run says comes true."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import second_model
from rag_service.embedding.http import HttpEmbedder
from tests.conftest import Service, Started, Team, settings_for
from tests.flows.test_reindex import children, job_of, plan, smaller, start

FEW, MANY = 40, 120
_OPEN = ("queued", "running")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Started(settings_for(tmp_path_factory.mktemp("estimate"))) as started:
        yield started


@pytest.fixture(scope="module")
def filled(service: Service) -> Team:
    """Documents of one to six chunks; `part` few is a sample of them all."""
    team, chance = service.new_team(), random.Random(7)
    words = [f"word{number}" for number in range(2_000)]
    wanted = []
    for place in range(FEW + MANY):
        parts = chance.randint(1, 6)
        text = "\n\n".join(f"# Part {part}\n\n{' '.join(chance.choices(words, k=60))}" for part in range(parts))
        wanted.append({"text": text, "metadata": {"part": "few" if place < FEW else "many"}})
    assert team.manager.post("/v1/documents:batch", json={"documents": wanted}).status_code in (200, 202, 207)
    team.drain(200)
    return team


def held_bytes(folder: Path) -> int:
    """What files take on the disk: the store makes its files larger than they are filled."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def test_disk_is_within_a_quarter_of_what_the_files_grow_by(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        if service.runtime.database.is_shared:
            pytest.skip("the database's files are elsewhere")
        team, chance = service.new_team(), random.Random(3)
        words = [f"word{number}" for number in range(20_000)]

        def grown(documents: int) -> int:
            texts = ["\n\n".join(" ".join(chance.choices(words, k=140)) for _ in range(8)) for _ in range(documents)]
            before = held_bytes(tmp_path / "vectors") + _database_bytes(service)
            body = {"documents": [{"text": text} for text in texts]}
            assert team.manager.post("/v1/documents:batch", json=body).is_success
            service.work()
            return held_bytes(tmp_path / "vectors") + _database_bytes(service) - before

        grown(5)  # what an index takes before there is anything in it
        before = plan(team, "parse")["disk_bytes"]
        actual = grown(60)
        assert off_by(plan(team, "parse")["disk_bytes"] - before, actual) < 0.25


def _database_bytes(service: Service) -> int:
    with service.runtime.database.read() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def test_tokens_are_those_of_the_texts_that_an_embedder_over_http_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = second_model.serve(second_model.hashing(), 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    http = {
        "embedder": "http",
        "embedding_url": f"http://127.0.0.1:{server.server_port}",
        "embedding_model": "second",
        "embedding_dimensions": second_model.DIMENSIONS,
    }
    with Started(settings_for(tmp_path, **http), worker=False) as service:
        team = service.new_team()
        for place in range(20):
            team.put(f"# Page {place}\n\n" + f"What page {place} says about itself. " * (place + 1))
        service.work()
        assert plan(team, "embed")["tokens"] == 0, "every vector is there"
        sent: list[str] = []
        embed = HttpEmbedder.embed

        def counting(self: HttpEmbedder, texts: Sequence[str], kind: Any) -> Any:
            sent.extend(texts if kind == "document" else ())
            return embed(self, texts, kind)

        monkeypatch.setattr(HttpEmbedder, "embed", counting)
        monkeypatch.setattr("rag_service.runtime.pipelines.make_chunker", smaller)
        told = plan(team, "chunk")
        job_id = start(team, "chunk")
        service.work()
        assert job_of(team, job_id)["state"] == "succeeded"
        assert off_by(told["tokens"], sum(len(service.runtime.embedder.token_spans(text)) for text in sent)) < 0.25
        service.runtime.embedder.close()  # type: ignore[attr-defined] # of its connections
    server.shutdown()
    server.server_close()


def spent(process: psutil.Process) -> float:
    """CPU seconds of the service and of the parsers beside it."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))


def timed(team: Team, from_stage: str, part: str) -> tuple[float, float, str]:
    """(seconds, CPU seconds, job) of doing it."""
    process = psutil.Process()
    began, cpu = time.monotonic(), spent(process)
    job_id = start(team, from_stage, filter={"part": part})
    while job_of(team, job_id)["state"] in _OPEN:
        time.sleep(0.05)
    return time.monotonic() - began, spent(process) - cpu, job_id


def off_by(predicted: float, actual: float) -> float:
    return abs(predicted / actual - 1)


@pytest.mark.slow
@pytest.mark.parametrize("from_stage", ["metadata", "embed", "parse"])
def test_documents_chunks_and_seconds_are_within_a_quarter_of_what_then_happens(filled: Team, from_stage: str) -> None:
    """One round over a third as many documents is what the estimate for the others is made of.

    Other tests run on the same cores meanwhile, now more, now less. The seconds that each round took for each second
    of CPU that it got say how much; the estimate is held against what the second round would have taken at the pace
    of the first. On a quiet machine the two are the same.
    """
    offs: list[float] = []
    # A machine that changes its pace within a round says nothing: then another round does.
    while len(offs) < 3 and (not offs or offs[-1] >= 0.25):
        warm_s, warm_cpu, _ = timed(filled, from_stage, "few")
        told = plan(filled, from_stage, filter={"part": "many"})
        took_s, took_cpu, job_id = timed(filled, from_stage, "many")
        slower = (took_s / took_cpu) / (warm_s / warm_cpu)
        done = children(filled, job_id)
        assert (told["documents"], told["skipped"]) == (MANY, {})
        assert len(done) == MANY
        if from_stage != "metadata":
            assert told["chunks"] == sum(row.counters["chunks"] for row in done)
        offs.append(off_by(told["seconds"] * slower, took_s))
    assert min(offs) < 0.25, offs


def test_what_was_never_done_here_has_no_time(tmp_path: Path) -> None:
    with Started(settings_for(tmp_path), worker=False) as service:
        team = service.new_team()
        assert plan(team, "embed")["seconds"] == 0
        team.put("A page.")
        assert plan(team, "parse") == {
            "documents": 1,
            "chunks": 0,
            "seconds": None,
            "disk_bytes": 0,
            "tokens": 0,
            "skipped": {},
        }
        service.work()
        assert plan(team, "parse")["seconds"] > 0
        assert plan(team, "metadata")["seconds"] is None
