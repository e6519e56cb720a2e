"""rag admin rotate-secrets."""

from __future__ import annotations

from typing import Annotated

import typer

from rag_service.cli.failure import FAILED, CommandFailed
from rag_service.cli.operating import operating
from rag_service.cli.output import Output
from rag_service.cli.session import ending


def rotate_secrets(
    drop: Annotated[
        bool, typer.Option("--drop-unreadable", help="Forget what cannot be opened, where its key is lost for good.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Encrypt every stored credential anew, under the newest key. Exits 1 if one could not be opened.

    With RAG_SECRET_KEYS, put the new key first, restart every process, rotate, and take the old key away. Otherwise the
    service is stopped, a new key made, and the old one removed at the end.
    """
    from rag_service.runtime.secret_keys import key_file

    output = Output(as_json)
    with ending(output), operating() as runtime:
        file = key_file(runtime.settings)
        if file is not None:
            runtime.lock_folder()
            file.add()
        rotation = runtime.credentials.rotate(drop=drop)
        more, unopened = runtime.courier.secrets.rotate(drop=drop)
        rotated, failed = rotation.rotated + more, [*rotation.failed, *unopened]
        if file is not None and (drop or not failed):
            file.keep_newest()
        output.data({"rotated": rotated, "key": rotation.key, "failed": failed})
        output.show(f"{rotated} credentials are encrypted under the key {rotation.key}.")
        if failed and drop:
            output.note(
                f"Those of {len(failed)} sources or webhooks are dropped: {', '.join(failed)}. Set them again once it "
                "runs: PATCH /v1/sources/{source_id}, rag webhook rotate ID."
            )
        elif failed:
            raise CommandFailed(
                f"Credentials of {len(failed)} sources or webhooks could not be opened: {', '.join(failed)}.",
                "Add the key that they were encrypted under, or set them again; if it is lost, say --drop-unreadable. "
                "Old keys are still needed until then.",
                exit_code=FAILED,
            )
