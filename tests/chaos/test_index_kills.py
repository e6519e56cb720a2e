"""SIGKILL in the middle of a build, again and again: it goes on where it was, and what it makes is right."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.process import TEAM, ServiceProcess, service_process
from tests.chaos.report import seed_of
from tests.churn import text_of
from tests.conftest import Started, Team, settings_for
from tests.index_builds import PATH, WIDER, faults

DOCUMENTS, KILLS = 160, 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_build_that_is_killed_five_times_is_finished_and_right(tmp_path: Path) -> None:
    dice = random.Random(seed_of(5))
    with service_process(tmp_path) as service:
        service.start()
        service.make_team()
        fill(service)
        made = service.request("POST", PATH, json={"pipeline": WIDER, "priority": "low"})["id"]
        reached: list[int] = []
        for _ in range(KILLS):
            reached.append(wait_until_further(service, made, reached[-1] if reached else 0))
            time.sleep(dice.uniform(0, 0.3))
            service.kill()
            service.start()
            # Whatever was built is not built again.
            assert progress(service, made)["done"] >= reached[-1]
            write_and_delete(service, dice)
        assert reached[-1] < DOCUMENTS, "the kills came too late"
        service.request("PATCH", f"{PATH}/{made}", json={"priority": "high", "max_concurrency": 2})
        wait_until_ready(service, made)
        service.wait_until_idle()
        former = service.request("GET", PATH, params={"state": "active"})["data"][0]["id"]
        service.request("POST", f"{PATH}/{made}:promote", json={})
        service.stop()
    with Started(settings_for(tmp_path), worker=False) as again:
        team = Team(again, TEAM)
        assert faults(again, team, made) == faults(again, team, former) == []


def fill(service: ServiceProcess) -> None:
    documents = [{"text": text_of(n), "external_id": f"d{n}", "acl": {"public": True}} for n in range(DOCUMENTS)]
    service.request("POST", "/v1/documents:batch", json={"documents": documents})
    service.wait_until_idle()


def progress(service: ServiceProcess, index: str) -> dict[str, Any]:
    told: dict[str, Any] = service.request("GET", f"{PATH}/{index}")["progress"]
    return told


def wait_until_further(service: ServiceProcess, index: str, than: int) -> int:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        done = int(progress(service, index)["done"])
        if done > than:
            return done
        time.sleep(0.05)
    raise AssertionError(f"the build does not get further than {than}")


def write_and_delete(service: ServiceProcess, dice: random.Random) -> None:
    """One document anew, one closed, one gone."""
    listed = service.request("GET", "/v1/documents", params={"limit": 200})["data"]
    anew, closed, gone = dice.sample([document["id"] for document in listed if document["status"] == "ready"], 3)
    service.request("PUT", f"/v1/documents/{anew}/content", json={"text": text_of(dice.randrange(1000))})
    service.request("PATCH", f"/v1/documents/{closed}/acl", json={"users": ["ada"]})
    service.request("DELETE", f"/v1/documents/{gone}")


def wait_until_ready(service: ServiceProcess, index: str) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        if service.request("GET", f"{PATH}/{index}")["state"] == "ready":
            return
        time.sleep(0.1)
    raise AssertionError("the build did not come to its end")
