"""Starts the service as `rag serve` does; with --random-ids it is the broken variant that the kill test must catch."""

from __future__ import annotations

import sys
import uuid

from rag_service.__main__ import main
from rag_service.ingest import indexer

if __name__ == "__main__":
    if "--random-ids" in sys.argv:
        sys.argv.remove("--random-ids")
        indexer.chunk_id = lambda *_place: str(uuid.uuid4())
    main()
