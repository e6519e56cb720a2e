"""No file of the service can grow: every write of SQLite, of the blobs and of the vector store fails, then works again.

RLIMIT_FSIZE of the running process does it without a file system of one's own.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil

from tests.chaos.history import GONE, History, NoAnswerError, RefusedError, lost
from tests.chaos.process import ServiceProcess, service_process
from tests.chaos.report import Report

_UNLIMITED = psutil.RLIM_INFINITY
# The smallest file of those that the service writes to is soon larger than this.
_FULL = 4_096


def filled(folder: Path, seed: int, *, times: int, restart: bool = False) -> Report:
    """Uploads while the disk is full are refused with 503 and Retry-After; what was accepted is there in the end.

    A job that no worker could claim is rung again after a minute, or at a `restart`.
    """
    dice, history = random.Random(seed), History()
    wrong: list[str] = []
    with service_process(folder / "data", RAG_LEASE_S="5") as service:
        service.start()
        service.make_team()
        for round_ in range(times):
            for number in range(10):
                if number == 3:
                    _limit(service, _FULL)
                if number == 8:
                    _limit(service, _UNLIMITED)
                time.sleep(dice.uniform(0, 0.2))
                problem = _upload(service, history, f"doc-{round_}-{number}", dice.choice((10, 3_000)))
                wrong += [problem] if problem else []
            wrong += _answers(service)
        recovered = time.monotonic()
        if restart:
            service.stop()
            service.start()
        service.wait_until_idle()
        recovery = time.monotonic() - recovered
        final = _final(service)
        letters = service.request("GET", "/v1/admin/dead-letters")["data"]
        service.stop()
    wrong += lost(history, final)
    wrong += [f"a job gave up: {letter['error']}" for letter in letters]
    numbers = {"times full": times, "accepted": history.count("ok"), "refused": history.count("fail")}
    return Report("disk full", seed, "no file may grow", {**numbers, "recovered s": round(recovery, 1)}, tuple(wrong))


def _limit(service: ServiceProcess, size: int) -> None:
    psutil.Process(service.pid).rlimit(psutil.RLIMIT_FSIZE, (size, _UNLIMITED))


def _upload(service: ServiceProcess, history: History, name: str, words: int) -> str | None:
    """Put one document in; returns what is wrong with the answer."""
    answer = service.ask("POST", "/v1/documents", json={"text": f"{name} " + "words " * words, "external_id": name})
    refused = answer.status_code == 503 and "Retry-After" in answer.headers
    with history.doing("upsert", name, "there"):
        if answer.status_code != 202:
            raise RefusedError if refused else NoAnswerError
    return None if refused or answer.status_code == 202 else f"{name} was answered with {answer.status_code}"


def _answers(service: ServiceProcess) -> list[str]:
    """It lives, and says so."""
    alive = service.ask("GET", "/livez").status_code
    return [] if alive == 200 else [f"livez says {alive}"]


def _final(service: ServiceProcess) -> dict[str, object]:
    """What the catalogue holds, of what is ready and can be found."""
    page = service.request("GET", "/v1/documents", params={"limit": 1000})["data"]
    return {row["external_id"]: "there" if row["status"] == "ready" else row["status"] for row in page} or {"": GONE}
