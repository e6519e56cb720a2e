"""The file of keys: complete at every moment, made once, for its owner alone."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rag_service.runtime.secret_keys import KeyFile, key_file, make_vault
from rag_service.vault import key_id, new_key, parse_keys
from tests.conftest import settings_for


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "secret.key")


def test_where_there_is_no_file_there_is_no_key(file: KeyFile) -> None:
    assert file.load() == []
    assert not file.path.exists()


def test_many_that_make_it_at_once_get_the_same_key(file: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: tuple(file.make()), range(32)))
    assert len(set(made)) == 1
    assert list(made[0]) == file.load()
    assert list(file.path.parent.iterdir()) == [file.path]


def test_it_is_readable_by_its_owner_only_after_every_change(file: KeyFile) -> None:
    for change in (file.make, file.add, file.keep_newest):
        change()
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_a_new_key_comes_first_and_the_old_ones_go_last(file: KeyFile) -> None:
    (old,) = file.make()
    file.add()
    newest, second = file.load()
    assert second == old != newest
    file.keep_newest()
    assert file.load() == [newest]


def test_keys_of_the_settings_make_the_file_unused(tmp_path: Path) -> None:
    given = new_key()
    settings = settings_for(tmp_path, secret_keys=given)
    assert key_file(settings) is None
    assert make_vault(settings, alone=True).newest == key_id(parse_keys(given)[0])
    assert list(tmp_path.iterdir()) == []
    assert key_file(settings_for(tmp_path)) == KeyFile(tmp_path / "secret.key")
