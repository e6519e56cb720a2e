"""A model that changes under its name is noticed before its vectors are compared with those of what it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from sqlalchemy import insert, select

from rag_service.db import Database
from rag_service.db.outbox import ALL_TEAMS
from rag_service.db.outside import outbox, webhooks
from rag_service.embedding.base import TextKind
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.errors import ConfigError, RetryableError
from rag_service.retrieval.probing import fingerprints as module
from rag_service.retrieval.probing.fingerprints import Fingerprints, Model, Verdict, least_cosine
from rag_service.retrieval.probing.texts import TEXTS, digest
from rag_service.types import new_id, utc_now
from tests.conftest import Service, Started, settings_for
from tests.waiting import until


def other_weights(embedder: HashingEmbedder, word: str) -> int:
    """Of the same name, revision and dimensions as ever."""
    return int.from_bytes(blake2b(word.encode(), digest_size=8, key=b"another seed").digest()) % 64


def readiness(client: TestClient) -> tuple[int, str | None]:
    answer = client.get("/readyz")
    return answer.status_code, answer.json()["parts"]["embedder"]["reason"]


def wait_for(client: TestClient, status: int, within_s: float = 10.0) -> str | None:
    """The reason that readyz gives for the embedder, once its status is this one."""
    until = time.monotonic() + within_s
    while True:
        found, reason = readiness(client)
        if found == status:
            return reason
        assert time.monotonic() < until, f"readyz still answers {found} after {within_s} s: {reason}"
        time.sleep(0.1)


def told(service: Service) -> list[Mapping[str, Any]]:
    with service.runtime.database.read() as connection:
        return list(connection.execute(select(outbox.c.data).order_by(outbox.c.id)).scalars())


def listen(service: Service) -> None:
    row = {"id": new_id("whk"), "team_id": ALL_TEAMS, "url": "https://nowhere.invalid/", "events": ["probe.failed"]}
    more: dict[str, Any] = {"description": "", "secrets": [], "enabled": False, "created_at": utc_now()}
    with service.runtime.database.transaction() as transaction:
        transaction.connection.execute(insert(webhooks).values(**row, **more))


class TestAService:
    def test_is_ready_with_the_model_that_it_has_had_since_its_first_start(self, tmp_path: Path) -> None:
        for _ in range(2):
            with Started(settings_for(tmp_path), worker=False) as service:
                assert readiness(service.anonymous) == (200, None)
                (model,) = service.admin.get("/v1/admin/fingerprints").json()["data"]
                assert (model["model"], model["moved"]) == ("hashing", False)
                assert model["cosine"] > 0.999999

    def test_that_is_started_with_other_weights_under_the_same_name_is_not_ready_and_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 200
        monkeypatch.setattr(HashingEmbedder, "_place", other_weights)
        with Started(settings_for(tmp_path), worker=False) as service:
            status, reason = readiness(service.anonymous)
            assert status == 503
            assert reason is not None
            assert "rag admin accept-fingerprint hashing" in reason
            assert service.anonymous.get("/livez").status_code == 200

    def test_whose_check_compares_nothing_would_be_ready(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The broken variant: with it, the test above fails."""
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 200
        monkeypatch.setattr(HashingEmbedder, "_place", other_weights)
        monkeypatch.setattr(module, "SAME", -1.0)
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 200

    def test_notices_within_ten_seconds_while_it_runs_and_tells_of_it_once_each_way(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Started(settings_for(tmp_path, fingerprint_s=1), worker=False) as service:
            listen(service)
            assert readiness(service.anonymous)[0] == 200
            with monkeypatch.context() as moved:
                moved.setattr(HashingEmbedder, "_place", other_weights)
                reason = wait_for(service.anonymous, 503)
                assert "hashing" in (reason or "")
                assert metric(service, "rag_embedder_fingerprint_cosine") < 0.9999
                service.runtime.probing.fingerprints.look()
            wait_for(service.anonymous, 200)
            events = [(event["check"], event["state"], event["severity"]) for event in told(service)]
            assert events == [("fingerprint", "failing", "critical"), ("fingerprint", "ok", "critical")]
            assert metric(service, "rag_embedder_fingerprint_cosine") > 0.9999

    def test_is_ready_again_once_somebody_has_accepted_the_model_by_its_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 200
        monkeypatch.setattr(HashingEmbedder, "_place", other_weights)
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 503
            accept = "/v1/admin/fingerprints:accept"
            assert service.admin.post(accept, json={"model": "another"}).status_code == 404
            assert readiness(service.anonymous)[0] == 503
            (model,) = service.admin.post(accept, json={"model": "hashing"}).json()["data"]
            assert model["moved"] is False
            assert readiness(service.anonymous)[0] == 200
        with Started(settings_for(tmp_path), worker=False) as service:
            assert readiness(service.anonymous)[0] == 200

    def test_looks_by_the_clock_though_nobody_asks_whether_it_is_ready(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Started(settings_for(tmp_path, fingerprint_s=1, sweep_s=0.1)) as service:
            team = service.new_team()
            until(lambda: fingerprint(team.manager) is not None, 10)
            monkeypatch.setattr(HashingEmbedder, "_place", other_weights)
            until(lambda: fingerprint(team.manager)["moved"], 10)
            assert team.manager.get("/v1/collections/default/health").json()["state"] == "failing"


def fingerprint(client: TestClient) -> Any:
    return client.get("/v1/collections/default/health").json()["fingerprint"]


def metric(service: Service, name: str) -> float:
    lines = service.admin.get("/metrics").text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


class Turning(HashingEmbedder):
    """Turns the vectors of its texts a little: by as many degrees (of one text, or of all) as it is told to."""

    def __init__(self, computation: str = "python") -> None:
        super().__init__()
        self.turned: list[float] = []
        self.only: str | None = None
        self.away: Exception | None = None
        self._computation = computation

    @property
    def computation(self) -> str:
        return self._computation

    def embed(self, texts: Sequence[str], kind: TextKind) -> NDArray[np.float32]:
        if self.away is not None:
            raise self.away
        made = super().embed(texts, kind)
        # Each look asks twice: for documents, then for questions.
        degrees = self.turned[0] if kind == "document" or len(self.turned) < 2 else self.turned.pop(0)
        chosen = [place for place, text in enumerate(texts) if self.only in (None, text)]
        made[chosen] = turned(made[chosen], degrees)
        return made


def turned(vectors: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Each unit vector, at this angle to what it was."""
    aside = np.roll(vectors, 1, axis=1)
    aside -= np.einsum("ij,ij->i", aside, vectors)[:, None] * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    angle = np.radians(degrees)
    turned: NDArray[np.float32] = (np.cos(angle) * vectors + np.sin(angle) * aside).astype(np.float32)
    return turned


def look(database: Database, model: Turning, *degrees: float) -> Verdict:
    model.turned = list(degrees)
    (verdict,) = Fingerprints(database, lambda: (Model(lambda: model),), 60).look()
    return verdict


class TestAModel:
    def test_that_computes_a_hundredth_of_a_percent_differently_has_not_moved_and_one_beyond_has(
        self, database: Database
    ) -> None:
        assert look(database, Turning(), 0.0).moved is False
        assert look(database, Turning(), 0.8).moved is False  # cosine 0.99990
        verdict = look(database, Turning(), 0.82)  # cosine 0.999898
        assert verdict.moved
        assert verdict.cosine == pytest.approx(0.999898, abs=2e-6)

    def test_that_has_moved_for_one_of_the_texts_has_moved(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look(database, Turning(), 0.0)
        model = Turning()
        model.only = TEXTS[12]
        assert look(database, model, 1.5).moved

        def on_average(known: NDArray[np.float32], now: NDArray[np.float32]) -> float:
            return float((known * now).sum(axis=1).mean())

        monkeypatch.setattr(module, "least_cosine", on_average)
        assert look(database, model, 1.5).moved is False

    def test_that_differs_now_and_then_has_moved_only_where_it_does_so_twice(self, database: Database) -> None:
        look(database, Turning(), 0.0)
        assert look(database, Turning(), 5.0, 0.1).moved is False
        assert look(database, Turning(), 5.0, 5.0).moved

    def test_of_another_runtime_may_differ_a_little_more_and_is_then_held_to_itself(self, database: Database) -> None:
        look(database, Turning("openvino bfloat16"), 0.0)
        assert look(database, Turning("torch float32"), 2.0).moved is False  # cosine 0.9994
        again = look(database, Turning("torch float32"), 2.0)
        assert again.cosine > 0.999999
        assert look(database, Turning("torch float32"), 0.0).moved
        assert look(database, Turning("openvino bfloat16"), 0.0).moved is False

    def test_of_another_runtime_is_not_taken_for_right_because_it_is_the_first_there(self, database: Database) -> None:
        look(database, Turning("openvino bfloat16"), 0.0)
        for _ in range(2):
            assert look(database, Turning("torch float32"), 3.0).moved  # cosine 0.9986

    def test_that_does_not_answer_has_not_moved_and_one_that_cannot_be_had_is_not_ready(
        self, database: Database
    ) -> None:
        model = Turning()
        model.turned, model.away = [0.0], RetryableError("The API is busy.")
        seen = Fingerprints(database, lambda: (Model(lambda: model),), 60)
        seen.check()
        assert seen.verdicts() == []
        model.away = ConfigError("The key is refused.")
        broken = Fingerprints(database, lambda: (Model(lambda: model),), 60)
        with pytest.raises(ConfigError, match="refused"):
            broken.check()
        with pytest.raises(ConfigError, match="refused"):
            broken.check()
        for one in (seen, broken):
            one.close()

    def test_that_an_index_is_being_built_with_is_told_of_and_stops_nobody(self, database: Database) -> None:
        look(database, Turning(), 0.0)
        built, away = Turning(), Turning()
        built.turned, away.away = [3.0], ConfigError("The key is refused.")
        seen = Fingerprints(database, lambda: (Model(lambda: built, serving=False),), 60)
        (verdict,) = seen.look()
        assert verdict.moved
        seen.check()
        assert Fingerprints(database, lambda: (Model(lambda: away, serving=False),), 60).look() == []
        seen.close()

    def test_that_hangs_keeps_nobody_waiting_who_asks_whether_the_service_is_ready(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
        model = Turning()
        model.turned = [0.0]
        embed, answered = model.embed, threading.Event()
        monkeypatch.setattr(model, "embed", lambda *asked: (answered.wait(60), embed(*asked))[1])
        seen = Fingerprints(database, lambda: (Model(lambda: model),), 60)
        began = time.monotonic()
        seen.check()
        assert time.monotonic() - began < 20
        answered.set()
        seen.close()
        assert len(seen.verdicts()) == 1

    def test_is_not_looked_at_where_nothing_is_computed(self, database: Database) -> None:
        seen = Fingerprints(database, lambda: (), 60)
        seen.check()
        assert seen.look() == []
        seen.close()


def test_vectors_of_another_length_are_not_alike() -> None:
    assert least_cosine(np.eye(3, 4, dtype=np.float32), np.eye(3, 5, dtype=np.float32)) == -1


def test_the_texts_are_twenty_of_many_scripts_short_and_long_and_stay_as_they_are() -> None:
    assert len(set(TEXTS)) == 20
    assert min(map(len, TEXTS)) < 10
    assert max(map(len, TEXTS)) > 700
    # Of other texts, every service would have to learn its models anew, and would not notice one that has moved.
    assert digest() == "0a6a1a1a3625867c4bf4262b69c0905653a7b89c61a09158c3df79f989093fbf"
