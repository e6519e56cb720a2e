"""Schemathesis over the whole OpenAPI document, against a service that is really running.

`python -m tests.security.fuzz` starts a service in a folder of its own and asks it what the document allows and what
it forbids, request by request and in sequences that follow the links. It exits with 1 when anything was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx

from rag_service.cli.serving import serving
from rag_service.settings import Settings
from tests.conftest import UNLIMITED

ADMIN_KEY = "rag_admin_for_fuzzing"
TEAM = "fuzzed"
# An answer that takes longer is taken for a hang.
_ANSWER_S = 30
_CONFIG = """
[checks]
# What is well-formed may still make no sense: a name taken, a folder that is not there.
positive_data_acceptance.expected-statuses = ["2xx", 401, 403, 404, 409, 413, 415, 422]
# What breaks the document may be refused before anybody reads it: its address, head or body is too long.
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 406, 409, 413, 414, 415, 422, 428, 429, 431]
"""


def fuzz(folder: Path, options: Sequence[str], timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """One run of schemathesis with these options, over a fresh service whose data lie in `folder`."""
    documents = folder / "documents"
    documents.mkdir(parents=True)
    (documents / "a.md").write_text("# Plans\n\nSomething to read.")
    config = folder / "schemathesis.toml"
    config.write_text(_CONFIG)
    # Sources may lie in one small folder only: a made-up root must not read this machine.
    settings = Settings(
        data_dir=folder / "data",
        admin_key=ADMIN_KEY,
        embedder="hashing",
        source_root=documents,
        worker_threads=2,
        parser_processes=1,
        **UNLIMITED,  # type: ignore[arg-type] # rates are numbers
    )
    with serving(settings, "127.0.0.1", 0) as running:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        httpx.post(f"{running.url}/v1/teams", json={"id": TEAM, "name": TEAM}, headers=headers).raise_for_status()
        hooks = {"SCHEMATHESIS_HOOKS": "tests.security.fuzz_hooks", "FUZZ_DOCUMENTS": str(documents)}
        environment = {**os.environ, **hooks, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"),
            f"{running.url}/openapi.json",
            *("-H", f"Authorization: Bearer {ADMIN_KEY}", "-H", f"X-Rag-Team: {TEAM}"),
            *("--checks", "all", "--request-timeout", str(_ANSWER_S), "--no-color"),
            *("--generation-database", "none", *options),
        ]
        return subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, timeout=timeout_s, check=False
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="generated requests per operation and phase, at most")
    parser.add_argument("--seconds", type=int, help="fuzz and follow links until this time is spent")
    parser.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    parser.add_argument("--seed", type=int)
    given = parser.parse_args()
    options = ["--max-examples", str(given.examples), "--phases", given.phases, "--continue-on-failure"]
    options += [] if given.seconds is None else ["--max-time", str(given.seconds)]
    options += [] if given.seed is None else ["--seed", str(given.seed)]
    with tempfile.TemporaryDirectory(prefix="rag-fuzz-") as folder:
        done = fuzz(Path(folder) / "service", options)
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
