"""What a pipeline names is made from it, and for the rest from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from rag_service.embedding.hashing import HashingEmbedder
from rag_service.embedding.http import HttpEmbedder
from rag_service.errors import ConfigError
from rag_service.runtime.pipelines import Models
from rag_service.settings import Settings

KEY = "key-of-the-embeddings-api"


def models(tmp_path: Path, url: str | None = None) -> Models:
    settings = Settings(data_dir=tmp_path, embedding_url=url, embedding_api_key=SecretStr(KEY))
    return Models(settings, HashingEmbedder())


def shown(made: object) -> bool:
    assert isinstance(made, HttpEmbedder)
    return KEY in repr(vars(made))


def test_without_a_name_it_is_the_model_of_the_settings(tmp_path: Path) -> None:
    held = models(tmp_path)
    assert held.of(None) is held.of({}) is held.of(None)


def test_the_same_name_is_the_same_model(tmp_path: Path) -> None:
    held = models(tmp_path)
    one = held.of({"embedder": "hashing", "dimensions": 32})
    assert one is held.of({"dimensions": 32, "embedder": "hashing"})
    assert (one.identity.dimensions, held.of({"embedder": "hashing"}).identity.dimensions) == (32, 64)


def test_only_as_many_models_as_may_be_wanted_at_a_time_are_held(tmp_path: Path) -> None:
    held = models(tmp_path)
    first = held.of({"embedder": "hashing", "dimensions": 1})
    for dimensions in range(2, 7):
        held.of({"embedder": "hashing", "dimensions": dimensions})
    assert held.of({"embedder": "hashing", "dimensions": 1}) is not first


@pytest.mark.parametrize(
    ("spec", "said"),
    [({"colour": "red"}, "colour"), ({"embedder": "psychic"}, "embedder"), ({"embedder": "http"}, "url")],
)
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, spec: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        models(tmp_path).of(spec)


@pytest.mark.parametrize(
    ("named", "asked", "gets_it"),
    [
        ("https://api.example/v1", "https://api.example/v2", True),
        (None, "https://api.example/v1", True),
        ("https://api.example/v1", "https://elsewhere.example/v1", False),
        ("https://api.example/v1", "http://api.example/v1", False),
        ("https://api.example/v1", "https://api.example:8443/v1", False),
    ],
)
def test_a_key_is_shown_to_the_api_that_it_is_of_and_to_no_other(
    tmp_path: Path, named: str | None, asked: str, gets_it: bool
) -> None:
    made = models(tmp_path, named).of({"embedder": "http", "url": asked, "model": "m"})
    assert shown(made) is gets_it
