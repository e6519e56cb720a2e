"""`rag` and `python -m rag_service`."""

from __future__ import annotations

from rag_service.cli import app


def main() -> None:
    app(prog_name="rag")


if __name__ == "__main__":
    main()
