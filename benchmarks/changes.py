"""What a change costs beside the first sync of the same folder: nothing changed, one in a hundred edited, ACLs changed.

    python -m benchmarks.changes --data ../shared/data/collections/scifact_train --documents 5000

A folder with one file per passage is synced over HTTP; then it is synced again as it is, then with every hundredth file
edited. At last the ACLs of a fifth of the documents are replaced over HTTP, one by one, until the index has them too.
`embedding` is the time that jobs spent in the model.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from benchmarks.beir import load
from benchmarks.results import add_json_option, write
from benchmarks.service import Service, running_service

_CLIENTS = 4


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True, help="folder of one collection in BEIR form")
    arguments.add_argument("--documents", type=int, default=5_000)
    add_json_option(arguments)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="rag-bench-docs-") as folder, running_service() as service:
        root = Path(folder)
        files = _written(root, given.data, given.documents)
        source = service.post("/v1/sources", {"name": "folder", "type": "files", "config": {"root": folder}})["id"]
        rows = [_spent(service, "first sync", lambda: _sync(service, source, len(files)))]
        rows.append(_spent(service, "nothing changed", lambda: _sync(service, source, 0)))
        edited = files[::100]
        for file in edited:
            file.write_text(f"{file.read_text(encoding='utf-8')}\n\nRevised today.\n", encoding="utf-8")
        rows.append(_spent(service, f"{len(edited)} edited", lambda: _sync(service, source, len(edited))))
        readers = _documents(service, len(files) // 5)
        rows.append(_spent(service, f"{len(readers)} ACLs replaced", lambda: _open_to_hr(service, readers)))
    _print(rows)
    write(given.json, rows)


def _written(root: Path, data: Path, wanted: int) -> list[Path]:
    files = []
    for number, passage in zip(range(wanted), load(data).documents, strict=False):
        file = root / f"{number % 100:02}" / f"{number}.md"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"# {passage['title']}\n\n{passage['text']}\n", encoding="utf-8")
        files.append(file)
    return files


def _spent(service: Service, what: str, work: Callable[[], None]) -> dict[str, Any]:
    cpu, embedding, began = _cpu_seconds(service), _embedding_ms(service), time.perf_counter()
    work()
    return {
        "what": what,
        "wall_s": time.perf_counter() - began,
        "cpu_s": _cpu_seconds(service) - cpu,
        "embedding_s": (_embedding_ms(service) - embedding) / 1000,
    }


def _sync(service: Service, source: str, changed: int) -> None:
    """One sync from its start to the end of its last document. Raises RuntimeError where it did not go as expected."""
    started = service.post(f"/v1/sources/{source}/sync", {})["job_id"]
    while (job := service.get(f"/v1/jobs/{started}"))["state"] in ("queued", "running"):
        time.sleep(0.05)
    counters = job["counters"]
    if job["state"] != "succeeded" or counters.get("new", 0) + counters.get("modified", 0) != changed:
        raise RuntimeError(f"the sync ended as {job['state']} with {counters}, {changed} changes were made")


def _documents(service: Service, wanted: int) -> list[str]:
    ids: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while len(ids) < wanted:
        after = {"after": page["next_cursor"]} if page["next_cursor"] else {}
        page = service.get("/v1/documents", limit="100", **after)
        ids += [document["id"] for document in page["data"]]
    return ids[:wanted]


def _open_to_hr(service: Service, ids: list[str]) -> None:
    def replace(document_id: str) -> None:
        service.http.patch(f"/v1/documents/{document_id}/acl", json={"groups": ["hr"]}).raise_for_status()

    with ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(replace, ids))
    service.wait_until_idle()


def _embedding_ms(service: Service) -> float:
    with closing(sqlite3.connect(service.data_dir / "rag.db")) as database:
        [spent] = database.execute("SELECT sum(json_extract(stages_ms, '$.embed')) FROM jobs").fetchone()
    return float(spent or 0)


def _cpu_seconds(service: Service) -> float:
    me = psutil.Process(service.pid)
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(spent.user + spent.system for spent in times)


def _print(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    print("| | seconds | of the first | CPU seconds | of the first | embedding, thread seconds |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        wall, cpu = row["wall_s"] / first["wall_s"], row["cpu_s"] / first["cpu_s"]
        print(
            f"| {row['what']} | {row['wall_s']:.2f} | {wall:.1%} | {row['cpu_s']:.1f} | {cpu:.1%} |"
            f" {row['embedding_s']:.1f} |"
        )


if __name__ == "__main__":
    main()
