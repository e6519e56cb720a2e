"""What every route answers to every kind of key, as a table. `python -m tests.security.route_matrix` writes it anew."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from fastapi.testclient import TestClient

from rag_service.db import teams
from rag_service.types import utc_now
from tests.conftest import Service, Started, Team, settings_for
from tests.security.test_routes import Operation, Owned, own_everything, unknown

FILE = Path(__file__).with_name("route_matrix.txt")
COMMAND = "python -m tests.security.route_matrix"
# Fixed, so that a longer address does not change every line.
WIDTH = 64
SCOPES = ("query", "ingest", "impersonate", "manage", "admin")
_HEADING = f"""\
# Status of every route for every kind of key; made by `{COMMAND}`. Read what changed before you keep it:
# a 2xx that was a 4xx is a door that was opened. GET is asked for the key's own team's things, `other` for those of
# another team; the rest is asked for ids of nobody, or with no body, so that nothing comes of a call that is let in.
"""


def table(service: Service, folder: Path) -> str:
    """The whole table, over a running service whose worker runs."""
    owned = own_everything(service, folder, "plans")
    clients = dict(_clients(service, owned.team))
    paths = service.anonymous.get("/openapi.json").json()["paths"]
    rows = [
        (
            f"{method.upper():6} {path}",
            [str(_status(operation, client, kind, owned)) for kind, client in clients.items()],
        )
        for path, item in sorted(paths.items())
        for method, details in sorted(item.items())
        for operation in [Operation(details["operationId"], method, path)]
    ]
    columns = [max(len(kind), 3) + 2 for kind in clients]
    lines = [("", list(clients)), *rows]
    return _HEADING + "".join(
        f"{name:{WIDTH}}{''.join(f'{cell:{column}}' for cell, column in zip(cells, columns, strict=True))}".rstrip()
        + "\n"
        for name, cells in lines
    )


def _clients(service: Service, team: Team) -> Iterator[tuple[str, TestClient]]:
    yield "none", service.anonymous
    yield "malformed", TestClient(service.anonymous.app, headers={"Authorization": "Basic cmFnOnJhZw=="})
    yield "revoked", service.client(_revoked(team))
    yield "expired", service.client(_expired(team))
    yield "other", service.new_team().client("manage")
    for scope in SCOPES:
        yield scope, team.client(scope)
    yield "service", team.admin


def _revoked(team: Team) -> str:
    path = f"/v1/teams/{team.id}/keys"
    made = team.manager.post(path, json={"name": "k", "scopes": ["manage"]}).json()
    team.manager.delete(f"{path}/{made['id']}").raise_for_status()
    return str(made["key"])


def _expired(team: Team) -> str:
    secret = f"rag_{secrets.token_urlsafe(32)}"
    with team.service.runtime.database.transaction() as transaction:
        teams.add_key(
            transaction.connection,
            secret,
            team_id=team.id,
            name="k",
            scopes=["manage"],
            user=None,
            groups=None,
            expires_at=utc_now() - timedelta(seconds=1),
        )
    return secret


def _status(operation: Operation, client: TestClient, kind: str, owned: Owned) -> int:
    """`other` names what exists and is not its own; everybody else changes only what is not there."""
    ids = owned.ids
    if operation.method != "get" and kind != "other":
        ids = {name: unknown(value) for name, value in ids.items()} | {"team_id": owned.team.id}
    return operation.call(client, ids).status_code


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Started(settings_for(Path(folder) / "data")) as service:
        FILE.write_text(table(service, Path(folder)))
    sys.stdout.write(f"{FILE}\n")


if __name__ == "__main__":
    main()
