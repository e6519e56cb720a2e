"""A distributed service whose servers are struck, and whose workers are killed or stopped for a while."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path
from typing import Any

from tests.chaos.history import GONE, History, RefusedError, lost, went_back
from tests.chaos.report import Report
from tests.distributed.cluster import RAG, Cluster, cluster

TEAM = "chaos"
_LEASE_S = 4
_DOCUMENTS = 12


def queue_lost(folder: Path, seed: int, *, files: int, worker_kills: int, redis_kills: int, outage_s: float) -> Report:
    """FLUSHALL, kill -9 of Redis and of workers in the middle of a sync: every document is ready in the end."""
    dice = random.Random(seed)
    _write(folder / "docs", files)
    began = time.monotonic()
    with cluster(folder / "cluster", apis=1, RAG_LEASE_S=str(_LEASE_S)) as service:
        service.request("POST", "/v1/teams", json={"id": TEAM, "name": TEAM})
        source, job_id = _begin_sync(service, folder / "docs")
        acts = ["worker"] * worker_kills + ["redis"] * redis_kills + ["flush"]
        dice.shuffle(acts)
        for act in acts:
            time.sleep(dice.uniform(0.2, 1.5))
            _strike(service, act, dice, outage_s)
        job = service.job(job_id, TEAM, patience_s=600)
        counts = service.request("GET", f"/v1/sources/{source}", team=TEAM)["documents"]
        doubled = _doubled(service, files)
    wrong = [] if counts == {"ready": files} else [f"{counts} of {files} documents"]
    wrong += [] if job["state"] == "succeeded" else [f"the sync ended as {job['state']}: {job['error']}"]
    numbers = {"documents": files, "worker kills": worker_kills, "Redis kills": redis_kills}
    numbers["seconds"] = round(time.monotonic() - began)
    return Report("queue lost", seed, "Redis killed and emptied, workers killed", numbers, tuple(wrong + doubled))


def zombies(folder: Path, seed: int, *, stops: int) -> Report:
    """A worker is stopped beyond its lease while documents change, and goes on: the newest version answers."""
    dice, history = random.Random(seed), History()
    with cluster(folder / "cluster", apis=1, RAG_LEASE_S=str(_LEASE_S)) as service:
        service.request("POST", "/v1/teams", json={"id": TEAM, "name": TEAM})
        for version in range(1, stops + 1):
            _put_all(service, history, 2 * version - 1)
            time.sleep(dice.uniform(0, 0.5))
            stopped = dice.choice(service.workers)
            stopped.send(signal.SIGSTOP)
            _put_all(service, history, 2 * version)
            time.sleep(3 * _LEASE_S)
            stopped.send(signal.SIGCONT)
        wrong = _faults(service, history)
    numbers = {"stops": stops, "versions": 2 * stops, "documents": _DOCUMENTS, "refused": history.count("fail")}
    return Report("zombies", seed, f"workers stopped for {3 * _LEASE_S} s, then continued", numbers, tuple(wrong))


def servers_out(folder: Path, seed: int, *, rounds: int, mutant: str = "") -> Report:
    """Redis is full, Postgres is restarted, the vector store hangs while documents change: each is done or refused."""
    dice, history = random.Random(seed), History()
    wrong: list[str] = []
    rag = ("tests.chaos.launch", f"--mutant={mutant}") if mutant else RAG
    with cluster(folder / "cluster", apis=1, rag=rag, RAG_LEASE_S=str(_LEASE_S), RAG_QDRANT_TIMEOUT_S="2") as service:
        service.request("POST", "/v1/teams", json={"id": TEAM, "name": TEAM})
        outages = [service.redis.full, service.postgres.away] * rounds
        outages += [service.qdrant.hanging] * rounds if service.qdrant is not None else []
        dice.shuffle(outages)
        for turn, outage in enumerate(outages, start=1):
            _put_all(service, history, 2 * turn - 1)
            time.sleep(dice.uniform(0, 0.5))
            with outage():
                _put_all(service, history, 2 * turn)
                wrong += _asked_meanwhile(service, history)
            service.wait_for("the service is ready again", service.apis[0].is_ready, 120)
        wrong += _faults(service, history)
    refused = history.count("fail") + sum(read.outcome == "fail" for read in history.of("read"))
    numbers = {"outages": len(outages), "accepted": history.count("ok"), "refused": refused}
    told = "Redis full, Postgres restarted, the vector store stopped"
    return Report("servers out", seed, told, numbers, tuple(wrong))


def _faults(service: Cluster, history: History) -> list[str]:
    """What is wrong once all jobs are over."""
    service.wait_for("all jobs are over", lambda: not _open_jobs(service), 240)
    final = {f"doc-{number}": _seen(service, history, number) for number in range(_DOCUMENTS)}
    letters = service.request("GET", "/v1/admin/dead-letters")["data"]
    return lost(history, final) + went_back(history) + [f"a job gave up: {letter['error']}" for letter in letters]


def _asked_meanwhile(service: Cluster, history: History) -> list[str]:
    """A question is answered, or refused with the word when to come back."""
    answer = service.apis[0].send_request("POST", "/v1/retrieve", team=TEAM, json={"query": "document1"})
    refused = answer.status_code == 503 and "Retry-After" in answer.headers
    with history.doing("read", "any"):
        if refused:
            raise RefusedError
    return [] if refused or answer.is_success else [f"a question was answered with {answer.status_code}"]


def _strike(service: Cluster, act: str, dice: random.Random, outage_s: float) -> None:
    if act == "worker":
        worker = dice.choice(service.workers)
        worker.kill()
        worker.start()
    elif act == "redis":
        service.redis.kill()
        time.sleep(outage_s)
        service.redis.start()
    else:
        with service.redis.client() as client:
            client.flushall()


def _write(root: Path, files: int) -> None:
    root.mkdir(parents=True)
    for number in range(files):
        (root / f"{number:05}.md").write_text(f"# Number {number}\n\n" + f"Words of {number}. " * 30)


def _begin_sync(service: Cluster, root: Path) -> tuple[str, str]:
    wanted = {"name": "tree", "type": "files", "config": {"root": str(root)}, "acl": {"public": True}}
    source = str(service.request("POST", "/v1/sources", team=TEAM, json=wanted)["id"])
    return source, str(service.request("POST", f"/v1/sources/{source}/sync", team=TEAM, json={})["job_id"])


def _put_all(service: Cluster, history: History, version: int) -> None:
    for number in range(_DOCUMENTS):
        text = f"# Document {number}\n\n" + f"document{number} version{version}q. " * (5 + version % 3 * 60)
        body = {"text": text, "external_id": f"doc-{number}", "acl": {"public": True}}
        with history.doing("upsert", f"doc-{number}", version):
            answer = service.apis[0].send_request("POST", "/v1/documents", team=TEAM, json=body)
            # A worker stopped within a transaction has its document locked, and the service says when to come back.
            if answer.status_code == 503 and "Retry-After" in answer.headers:
                raise RefusedError
            assert answer.is_success, answer.text


def _seen(service: Cluster, history: History, number: int) -> Any:
    """The version that answers; several in one answer are told as such."""
    body = {"query": f"document{number}", "top_k": 50, "filter": {"external_id": f"doc-{number}"}}
    hits = service.request("POST", "/v1/retrieve", team=TEAM, json=body)["results"]
    versions = {int(hit["text"].partition("version")[2].partition("q")[0]) for hit in hits}
    with history.doing("read", f"doc-{number}", max(versions, default=GONE)):
        pass
    return versions.pop() if len(versions) == 1 else sorted(versions) or GONE


def _open_jobs(service: Cluster) -> list[Any]:
    found: list[Any] = []
    for state in ("queued", "running"):
        found += service.request("GET", "/v1/jobs", team=TEAM, params={"state": state, "limit": 1})["data"]
    return found


def _doubled(service: Cluster, files: int) -> list[str]:
    """Documents that one question finds twice over: chunks of a killed worker beside those of its successor."""
    wrong = []
    for number in range(0, files, max(1, files // 50)):
        body = {"query": f"words of {number}", "top_k": 50, "filter": {"external_id": f"{number:05}.md"}}
        hits = service.request("POST", "/v1/retrieve", team=TEAM, json=body)["results"]
        places = [(hit["position"]["start"], hit["position"]["end"]) for hit in hits]
        wrong += [] if places and len(places) == len(set(places)) else [f"{number}: passages {places}"]
    return wrong
