"""The options by which a pipeline is described."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rag_service.cli.options import given

_PANEL = "Pipeline"


def _text(name: str, metavar: str, help_text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, rich_help_panel=_PANEL)


Embedder = Annotated[str | None, _text("--embedder", "KIND", "local or http; else as the settings say.")]
Model = Annotated[str | None, _text("--model", "NAME", "Embedding model: a name, or a folder on the service's disk.")]
EmbeddingUrl = Annotated[str | None, _text("--embedding-url", "URL", "Base URL of the embeddings API, for http.")]
Dimensions = Annotated[
    int | None,
    typer.Option("--dimensions", metavar="N", min=1, help="Vector length, for http.", rich_help_panel=_PANEL),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window", metavar="N", min=16, help="Tokens that the model reads, for http.", rich_help_panel=_PANEL
    ),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option("--chunk-tokens", metavar="N", min=16, help="Largest chunk in tokens.", rich_help_panel=_PANEL),
]
Context = Annotated[
    str | None, _text("--context", "KIND", "headings: title and headings before each chunk; none: bare chunks.")
]
Language = Annotated[str | None, _text("--language", "NAME", "How words are told apart and reduced.")]
ParseAnew = Annotated[bool, typer.Option("--parse-anew", help="Parse the raw bytes again.", rich_help_panel=_PANEL)]


def pipeline(
    *,
    embedder: str | None,
    model: str | None,
    url: str | None,
    dimensions: int | None,
    window: int | None,
    tokens: int | None,
    context: str | None,
    language: str | None,
    parse_anew: bool,
) -> dict[str, Any]:
    """What differs from the settings, in the service's shape; what no option names is left to them."""
    parts = {
        "embedding": given(embedder=embedder, model=model, url=url, dimensions=dimensions, window=window),
        "chunking": given(tokens=tokens, context=context),
        "language": language,
        "parsing": {"anew": True} if parse_anew else {},
    }
    return {name: part for name, part in parts.items() if part}
