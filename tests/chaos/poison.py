"""Five documents that do their worst to whoever parses them, among many that do not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.process import service_process
from tests.chaos.report import Report


@dataclass(frozen=True, slots=True)
class Poison:
    """A document for one of the hostile parsers, and the codes with which it may be parked."""

    media_type: str
    content: bytes
    codes: frozenset[str]


POISONS: Mapping[str, Poison] = {
    "kills itself": Poison("test/killitself", b"x", frozenset({"crashed"})),
    "reads no memory": Poison("test/crash", b"x", frozenset({"crashed"})),
    "hangs": Poison("test/sleep", b"100000", frozenset({"timeout"})),
    "wants 20 GB": Poison("test/allocate", b"x", frozenset({"memory"})),
    "prints without end": Poison("test/print", b"1000000000", frozenset({"timeout", "crashed"})),
}
_MOST_TRIES = 3
_SETTINGS = {"RAG_PARSER_TIMEOUT_S": "3", "RAG_PARSER_PROCESSES": "2"}


def poisoned(folder: Path, seed: int, *, neighbours: int) -> Report:
    """All neighbours are ready, unharmed; every poison is parked with its reason, in three tries at most."""
    with service_process(folder / "data", "--hostile=yes", **_SETTINGS) as service:
        service.start()
        service.make_team()
        began = time.monotonic()
        poison: dict[str, str] = {}
        for number in range(neighbours):
            body = {"text": f"# Neighbour {number}\n\nNothing but words.", "external_id": f"n{number}"}
            service.request("POST", "/v1/documents", json=body)
            if number % (neighbours // len(POISONS)) == 0 and len(poison) < len(POISONS):
                name = list(POISONS)[len(poison)]
                files = {"file": (name, POISONS[name].content, POISONS[name].media_type)}
                poison[name] = service.request("POST", "/v1/documents", files=files)["id"]
        service.wait_until_idle()
        seconds = time.monotonic() - began
        page: dict[str, Any] = {"next_cursor": None}
        records: list[dict[str, Any]] = []
        while not records or page["has_more"]:
            after = {"after": page["next_cursor"]} if page["next_cursor"] else {}
            page = service.request("GET", "/v1/jobs", params={"kind": "index", "limit": 1000, **after})
            records += page["data"]
        letters = service.request("GET", "/v1/admin/dead-letters", params={"limit": 100})["data"]
        service.stop()
    wrong = _parked_wrongly(poison, letters) + _harmed(records, set(poison.values()), neighbours)
    tries = {letter["document_id"]: letter["attempts"] for letter in letters}
    numbers = {"ready": sum(record["state"] == "succeeded" for record in records), "parked": len(letters)}
    numbers |= {"most tries": max(tries.values(), default=0), "seconds": round(seconds)}
    return Report("poison", seed, "parsers killed, hung, starved and flooded", numbers, tuple(wrong))


def _parked_wrongly(poison: Mapping[str, str], letters: list[dict[str, Any]]) -> list[str]:
    by_document = {letter["document_id"]: letter for letter in letters}
    wrong = []
    for name, document_id in poison.items():
        letter = by_document.get(document_id)
        if letter is None:
            wrong.append(f"what {name} is not parked")
        elif letter["error"]["code"] not in POISONS[name].codes or not 1 <= letter["attempts"] <= _MOST_TRIES:
            wrong.append(f"what {name} is parked for {letter['error']['code']} after {letter['attempts']} tries")
    return wrong


def _harmed(records: list[dict[str, Any]], poison: set[str], neighbours: int) -> list[str]:
    innocent = [record for record in records if record["document_id"] not in poison]
    harmed = [
        f"a neighbour is {record['state']} after {record['attempts']} failures"
        for record in innocent
        if record["state"] != "succeeded" or record["attempts"] or record["worker_deaths"]
    ]
    return harmed if len(innocent) == neighbours else [*harmed, f"{len(innocent)} neighbours instead of {neighbours}"]
