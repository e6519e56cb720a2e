"""What every connector must keep, run over every source type of the registry.

A source type takes part by a builder that makes a real source and can spoil it: see `FolderSource`.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from jsonschema import Draft202012Validator

import connectors
from connectors.base import Change, Checkpoint, Connector, Upsert
from connectors.errors import FatalSourceError, SkippableItemError, SourceError

ITEMS = 250


class Source(Protocol):
    """A source under the control of a test. Names are external ids."""

    config: dict[str, Any]
    unreachable: dict[str, Any]

    def put(self, name: str, content: bytes) -> None: ...

    def remove(self, name: str) -> None: ...

    def spoil(self, name: str) -> None:
        """Make one item, which was listed, impossible to read."""
        ...

    def failing_after(self, answers: int) -> AbstractContextManager[None]:
        """Let the source answer some requests of a listing, then no more."""
        ...

    def reads(self) -> AbstractContextManager[list[str]]:
        """The names of contents fetched within the block."""
        ...


class FolderSource:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = folder / "root"
        self.root.mkdir()
        self.config = {"root": str(self.root)}
        self.unreachable = {"root": str(folder / "missing")}
        self._monkeypatch = monkeypatch

    def put(self, name: str, content: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def remove(self, name: str) -> None:
        (self.root / name).unlink()

    def spoil(self, name: str) -> None:
        self.remove(name)
        (self.root / name).symlink_to("/etc/hostname")

    @contextmanager
    def failing_after(self, answers: int) -> Iterator[None]:
        real, left = os.scandir, iter(range(answers))

        def failing(folder: Any) -> Any:
            if next(left, None) is None:
                raise OSError(errno.EIO, "the disk is gone")
            return real(folder)

        with self._monkeypatch.context() as patch:
            patch.setattr(os, "scandir", failing)
            yield

    @contextmanager
    def reads(self) -> Iterator[list[str]]:
        real, names = os.open, list[str]()

        def counting(path: Any, flags: int, *args: Any, **options: Any) -> int:
            if not flags & os.O_DIRECTORY:
                names.append(str(path))
            return real(path, flags, *args, **options)

        with self._monkeypatch.context() as patch:
            patch.setattr(os, "open", counting)
            yield names


BUILDERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Source]] = {"files": FolderSource}


def test_every_source_type_takes_part_in_this_suite() -> None:
    assert set(BUILDERS) == set(connectors.REGISTRY)


@pytest.fixture(params=sorted(connectors.REGISTRY))
def type_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(type_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    built = BUILDERS[type_name](tmp_path, monkeypatch)
    for name, content in contents().items():
        built.put(name, content)
    return built


@pytest.fixture
def connector(type_name: str, source: Source) -> Connector:
    return connectors.create(type_name, source.config)


def contents() -> dict[str, bytes]:
    """Items in ten folders, so that a listing takes several requests and several checkpoints."""
    return {f"folder {n % 10}/item {n:03}.md": f"# Item {n}\n".encode() for n in range(ITEMS)}


def ids(changes: Iterable[Change]) -> list[str]:
    return [change.item.external_id for change in changes if isinstance(change, Upsert)]


def checkpoints(changes: Iterable[Change]) -> list[Checkpoint]:
    return [change for change in changes if isinstance(change, Checkpoint)]


def drain(changes: Iterator[Change]) -> tuple[Sequence[Change], SourceError | None]:
    """All that comes before the end or the error that ends it."""
    seen = []
    try:
        for change in changes:
            seen.append(change)
    except SourceError as error:
        return seen, error
    return seen, None


class TestConfig:
    def test_is_a_json_schema_that_describes_every_field(self, type_name: str) -> None:
        schema = connectors.load(type_name).Config.model_json_schema()
        Draft202012Validator.check_schema(schema)
        assert schema["properties"]
        assert [name for name, field in schema["properties"].items() if not field.get("description")] == []

    def test_refuses_unknown_keys_by_name_without_repeating_their_value(self, type_name: str, source: Source) -> None:
        with pytest.raises(FatalSourceError, match="colour") as caught:
            connectors.create(type_name, {**source.config, "colour": "hunter2"})
        assert caught.value.code == "invalid_config"
        assert "hunter2" not in str(caught.value)

    def test_states_its_capabilities_as_data(self, type_name: str) -> None:
        loaded = connectors.load(type_name)
        flags = (loaded.incremental, loaded.reports_deletes, loaded.reports_acl)
        assert all(isinstance(flag, bool) for flag in flags)

    def test_creating_a_connector_touches_nothing(self, type_name: str, source: Source) -> None:
        connector = connectors.create(type_name, source.unreachable)
        with pytest.raises(SourceError):
            connector.check()


class TestCheck:
    def test_counts_the_items_and_names_a_few(self, connector: Connector) -> None:
        check = connector.check()
        assert check.items == ITEMS
        assert 1 <= len(check.sample) <= 10

    def test_says_what_is_wrong(self, type_name: str, source: Source) -> None:
        with pytest.raises(SourceError) as caught:
            connectors.create(type_name, source.unreachable).check()
        assert len(str(caught.value)) > 20
        assert caught.value.code != "source_error"


class TestFullListing:
    def test_yields_every_item_once(self, connector: Connector) -> None:
        assert sorted(ids(connector.changes(None))) == sorted(contents())

    def test_ends_with_the_only_complete_checkpoint(self, connector: Connector) -> None:
        seen = list(connector.changes(None))
        assert [change for change in checkpoints(seen) if change.complete] == [seen[-1]]

    def test_announces_its_length_before_the_first_item(self, connector: Connector) -> None:
        first = next(connector.changes(None))
        assert isinstance(first, Checkpoint)
        assert first.total == ITEMS

    def test_puts_a_checkpoint_at_least_every_hundred_items(self, connector: Connector) -> None:
        run = longest = 0
        for change in connector.changes(None):
            run = 0 if isinstance(change, Checkpoint) else run + 1
            longest = max(longest, run)
        assert 0 < longest <= 100

    def test_has_the_same_order_each_time(self, connector: Connector) -> None:
        assert ids(connector.changes(None)) == ids(connector.changes(None))

    def test_no_longer_yields_what_was_removed(self, connector: Connector, source: Source) -> None:
        source.remove("folder 3/item 103.md")
        assert set(contents()) - set(ids(connector.changes(None))) == {"folder 3/item 103.md"}

    def test_reads_no_content(self, connector: Connector, source: Source) -> None:
        with source.reads() as fetched:
            items = [change.item for change in connector.changes(None) if isinstance(change, Upsert)]
            assert fetched == []
            items[0].read()
            assert len(fetched) == 1


class TestResuming:
    def test_from_any_checkpoint_skips_nothing(self, connector: Connector) -> None:
        seen = list(connector.changes(None))
        stops = [place for place, change in enumerate(seen) if isinstance(change, Checkpoint) and not change.complete]
        assert len(stops) >= 3
        for place in stops:
            cursor = json.loads(json.dumps(dict(checkpoints([seen[place]])[0].cursor)))
            rest = list(connector.changes(cursor))
            assert set(ids(seen[:place])) | set(ids(rest)) == set(contents())
            assert [change.complete for change in checkpoints(rest)][-1]

    def test_from_the_last_checkpoint_starts_the_next_listing(self, connector: Connector) -> None:
        last = checkpoints(connector.changes(None))[-1]
        if not connector.incremental:
            assert sorted(ids(connector.changes(last.cursor))) == sorted(contents())

    def test_repeats_at_most_what_lies_between_two_checkpoints(self, connector: Connector) -> None:
        seen = list(connector.changes(None))
        place = max(place for place, change in enumerate(seen[:-1]) if isinstance(change, Checkpoint))
        rest = ids(connector.changes(checkpoints([seen[place]])[0].cursor))
        assert len(rest) <= ITEMS - len(ids(seen[:place])) + 100


class TestInterruptedListing:
    @pytest.mark.parametrize("answers", range(11))
    def test_never_calls_itself_complete(self, connector: Connector, source: Source, answers: int) -> None:
        listing = connector.changes(None)
        before = next(listing)
        with source.failing_after(answers):
            seen, error = drain(listing)
        if error is None:
            assert sorted(ids(seen)) == sorted(contents())
        else:
            assert [change for change in checkpoints([before, *seen]) if change.complete] == []

    def test_fails_aloud_when_the_source_fails_in_the_middle(self, connector: Connector, source: Source) -> None:
        listing = connector.changes(None)
        next(listing)
        with source.failing_after(5):
            seen, error = drain(listing)
        assert 0 < len(ids(seen)) < ITEMS
        assert isinstance(error, SourceError)

    def test_fails_aloud_when_the_source_never_answers(self, connector: Connector, source: Source) -> None:
        with source.failing_after(0):
            seen, error = drain(connector.changes(None))
        assert isinstance(error, SourceError)
        assert seen == []

    def test_goes_on_from_its_last_checkpoint_when_the_source_is_back(
        self, connector: Connector, source: Source
    ) -> None:
        listing = connector.changes(None)
        seen = [next(listing)]
        with source.failing_after(7):
            seen += drain(listing)[0]
        rest = list(connector.changes(checkpoints(seen)[-1].cursor))
        assert set(ids(seen)) | set(ids(rest)) == set(contents())


class TestItems:
    def test_carry_what_a_document_needs(self, connector: Connector) -> None:
        for change in connector.changes(None):
            if isinstance(change, Upsert):
                item = change.item
                assert item.external_id
                assert item.title == item.title.strip()
                assert item.version_tag
                assert item.uri
                assert json.loads(json.dumps(dict(item.metadata))) == dict(item.metadata)

    def test_read_as_what_the_source_holds(self, connector: Connector) -> None:
        items = (change.item for change in connector.changes(None) if isinstance(change, Upsert))
        assert {item.external_id: item.read() for item in items} == contents()

    def test_keep_their_version_tag_while_nothing_changes(self, connector: Connector) -> None:
        assert tags(connector) == tags(connector)

    def test_change_their_version_tag_with_their_content(self, connector: Connector, source: Source) -> None:
        before = tags(connector)
        source.put("folder 4/item 104.md", b"# Another text\n")
        after = tags(connector)
        assert {name for name in before if before[name] != after[name]} == {"folder 4/item 104.md"}

    def test_fail_one_by_one(self, connector: Connector, source: Source) -> None:
        items = [change.item for change in connector.changes(None) if isinstance(change, Upsert)]
        source.spoil("folder 5/item 105.md")
        failed, read = {}, {}
        for item in items:
            try:
                read[item.external_id] = item.read()
            except SkippableItemError as error:
                failed[item.external_id] = error
        assert set(failed) == {"folder 5/item 105.md"}
        assert len(str(failed["folder 5/item 105.md"])) > 20
        assert read == {name: content for name, content in contents().items() if name not in failed}


def tags(connector: Connector) -> dict[str, str]:
    changes = connector.changes(None)
    return {change.item.external_id: change.item.version_tag for change in changes if isinstance(change, Upsert)}
