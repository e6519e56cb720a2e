"""The files source: which files it sees, in which order, and what it says when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import random
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

import connectors
from connectors.base import Checkpoint, Failure, Item, Upsert
from connectors.errors import FatalSourceError, RetryableSourceError, SkippableItemError, SourceError
from connectors.files import DEFAULT_EXCLUDES, FilesConfig, FilesConnector
from connectors.globs import compile_globs


def make(root: Path, **config: Any) -> FilesConnector:
    connector = connectors.create("files", {"root": str(root), **config})
    assert isinstance(connector, FilesConnector)
    return connector


def write(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        assert path.is_relative_to(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")


def items(connector: FilesConnector, cursor: Mapping[str, Any] | None = None) -> dict[str, Item]:
    return {change.item.external_id: change.item for change in connector.changes(cursor) if isinstance(change, Upsert)}


def failures(connector: FilesConnector) -> dict[str, str]:
    return {change.external_id: change.code for change in connector.changes(None) if isinstance(change, Failure)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


class TestRegistry:
    def test_loads_no_connector_before_one_is_asked_for(self) -> None:
        code = "import sys, connectors; assert 'connectors.files' not in sys.modules; connectors.load('files'); "
        code += "assert 'connectors.files' in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

    def test_names_the_known_types_for_an_unknown_one(self) -> None:
        with pytest.raises(FatalSourceError, match=r"'ftp'.*files") as caught:
            connectors.create("ftp", {})
        assert caught.value.code == "unknown_source_type"

    def test_names_every_wrong_field_at_once(self) -> None:
        with pytest.raises(FatalSourceError) as caught:
            connectors.create("files", {"root": "docs", "max_file_bytes": 0, "folder": "x", "include": "*.md"})
        wrong = ("root: must be an absolute path", "max_file_bytes: ", "folder is not a field")
        for told in (*wrong, "include: Input should be a list"):
            assert told in str(caught.value)

    def test_never_repeats_a_value_that_might_be_a_secret(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(connectors.REGISTRY, "vault", f"{__name__}:VaultConnector")
        with pytest.raises(FatalSourceError) as caught:
            connectors.create("vault", {"password": ["hunter2"], "port": "hunter2", "token": "hunter2"})
        told = str(caught.value)
        assert all(field in told for field in ("password", "port", "token"))
        assert "hunter2" not in told
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


class VaultConnector(FilesConnector):
    """A source type with a secret among its fields."""

    class Config(BaseModel, extra="forbid"):
        password: SecretStr
        port: int


class TestConfig:
    @pytest.mark.parametrize("path", ["docs", "./docs", "~/docs", "/srv/../etc", "", "/srv/\0", "/srv/\udce9"])
    def test_root_must_be_absolute_and_plain(self, path: str) -> None:
        with pytest.raises(FatalSourceError, match="root"):
            connectors.create("files", {"root": path})

    @pytest.mark.parametrize("glob", ["/etc/*", "../*", "docs/", "a//b", "./a", "a/../b", "", "x" * 501])
    def test_globs_must_be_relative_and_plain(self, glob: str) -> None:
        with pytest.raises(FatalSourceError, match="exclude"):
            connectors.create("files", {"root": "/srv", "exclude": [glob]})

    def test_including_nothing_is_refused_for_it_would_delete_everything(self) -> None:
        with pytest.raises(FatalSourceError, match="include"):
            connectors.create("files", {"root": "/srv", "include": []})

    def test_root_is_the_only_field_without_a_default(self) -> None:
        assert FilesConfig.model_json_schema()["required"] == ["root"]


class TestGlobs:
    @pytest.mark.parametrize(
        ("glob", "matching", "others"),
        [
            ("*.md", ["a.md", ".md"], ["a/b.md", "a.MD", "a.mdx"]),
            ("**/*.md", ["a.md", "a/b.md", "a/b/c.md"], ["a.md/b"]),
            ("docs/**", ["docs/a", "docs/a/b"], ["docs2/a", "a/docs/b", "docs"]),
            ("**", ["a", "a/b/c"], []),
            ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["a/bz", "b/a/z", "az"]),
            ("**/a/**/b/**", ["a/b/c", "x/a/y/b/c", "a/b/b/b"], ["a/b", "b/a/c"]),
            ("?.txt", ["a.txt", "é.txt", "\n.txt"], ["ab.txt", ".txt", "//.txt"]),
            ("a*b*c", ["abc", "aXbYc", "abbcc"], ["ab", "a/bc", "acb"]),
            ("a**b", ["ab", "axxb"], ["a/b"]),
            ("[ab].(x)+", ["[ab].(x)+"], ["a.x"]),
            (r"back\?slash", [r"back\xslash"], ["backxslash"]),
        ],
    )
    def test_match_whole_relative_paths(self, glob: str, matching: list[str], others: list[str]) -> None:
        pattern = compile_globs([glob])
        assert [path for path in matching + others if pattern.fullmatch(path)] == matching

    def test_several_match_what_any_of_them_does_and_none_match_nothing(self) -> None:
        either = compile_globs(["*.md", "docs/*"])
        assert [bool(either.fullmatch(path)) for path in ("a.md", "docs/a", "docs/a/b", "md")] == [
            True,
            True,
            False,
            False,
        ]
        assert compile_globs([]).fullmatch("a") is None

    @given(
        st.lists(st.sampled_from(["**", "*", "a", "ab", "?", "a*", "*b", "*a*b", "a?*"]), min_size=1, max_size=6),
        st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6),
    )
    def test_agree_with_the_plain_definition(self, glob: list[str], path: list[str]) -> None:
        expected = by_definition(path, glob)
        assert bool(compile_globs(["/".join(glob)]).fullmatch("/".join(path))) is expected

    @pytest.mark.parametrize(
        ("glob", "path"),
        [
            ("*a" * 60 + "*b", "a" * 255),
            ("**/" * 100 + "b", "a/" * 400 + "a"),
            ("**/a/" * 60 + "b", "a/" * 400 + "a"),
            ("**/*a*a*a*a/" * 20 + "b", ("a" * 40 + "/") * 20 + "a"),
        ],
    )
    def test_take_no_time_however_they_are_meant(self, glob: str, path: str) -> None:
        started = time.process_time()
        assert compile_globs([glob]).fullmatch(path) is None
        assert time.process_time() - started < 1


def by_definition(path: list[str], glob: list[str]) -> bool:
    """The meaning of a glob, part by part and character by character, without regard to time."""
    if not glob:
        return not path
    if glob[0] == "**":
        if len(glob) == 1:
            return bool(path)
        return by_definition(path, glob[1:]) or (bool(path) and by_definition(path[1:], glob))
    return bool(path) and _name_matches(path[0], glob[0]) and by_definition(path[1:], glob[1:])


def _name_matches(name: str, glob: str) -> bool:
    if not glob:
        return not name
    if glob[0] == "*":
        return _name_matches(name, glob[1:]) or (bool(name) and _name_matches(name[1:], glob))
    return bool(name) and glob[0] in ("?", name[0]) and _name_matches(name[1:], glob[1:])


class TestWhichFiles:
    def test_all_at_every_depth_by_default(self, root: Path) -> None:
        write(root, "a.md", "b/c.pdf", "b/d/e", "b/d/f/g.unknown")
        assert list(items(make(root))) == ["a.md", "b/c.pdf", "b/d/e", "b/d/f/g.unknown"]

    def test_include_chooses_files_anywhere(self, root: Path) -> None:
        write(root, "a.md", "b/c.md", "b/c.txt", "policies/x.txt")
        assert set(items(make(root, include=["**/*.md", "policies/**"]))) == {"a.md", "b/c.md", "policies/x.txt"}

    def test_exclude_wins_and_takes_a_folder_with_all_in_it(self, root: Path) -> None:
        write(root, "a.md", "drafts/b.md", "x/drafts/y/c.md", "x/d.md")
        assert set(items(make(root, include=["**/*.md"], exclude=["**/drafts"]))) == {"a.md", "x/d.md"}

    def test_an_excluded_folder_is_not_even_listed(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, "a.md", "private/b.md")
        listed = count_listings(monkeypatch)
        assert list(items(make(root, exclude=["private"]), {"total": 1})) == ["a.md"]
        assert len(listed) == 2  # the root, and once more at the end

    def test_the_usual_clutter_is_left_out_unless_asked_for(self, root: Path) -> None:
        clutter = [".env", ".git/config", "a/.hidden/b", "node_modules/x/y.md", "__pycache__/z", "~$plan.docx", "a.tmp"]
        clutter += ["b.swp", "c~", "Thumbs.db", "CVS/Root", "lost+found/x", "a/@eaDir/x"]
        write(root, "keep.md", *clutter)
        assert list(items(make(root))) == ["keep.md"]
        assert set(items(make(root, default_excludes=False))) == {"keep.md", *clutter}

    def test_own_excludes_come_on_top_of_the_usual_ones(self, root: Path) -> None:
        write(root, "keep.md", "drop.md", ".env")
        assert list(items(make(root, exclude=["drop.md"]))) == ["keep.md"]

    def test_symlinks_pipes_and_sockets_are_passed_over(self, root: Path, tmp_path: Path) -> None:
        write(root, "a.md", "b/c.md")
        (tmp_path / "outside.md").write_text("outside")
        (root / "inside.md").symlink_to("a.md")
        (root / "folder").symlink_to("b")
        (root / "outside.md").symlink_to(tmp_path / "outside.md")
        (root / "nowhere.md").symlink_to("missing")
        os.mkfifo(root / "pipe.md")
        with socket.socket(socket.AF_UNIX) as plug:
            here = Path.cwd()
            os.chdir(root)  # the path of a socket may be no longer than about a hundred bytes
            try:
                plug.bind("socket.md")
            finally:
                os.chdir(here)
        assert list(items(make(root))) == ["a.md", "b/c.md"]
        assert failures(make(root)) == {}


class TestItem:
    def test_describes_the_file(self, root: Path) -> None:
        write(root, "hand book/Größe & more.MD")
        path = root / "hand book/Größe & more.MD"
        os.utime(path, ns=(0, 1_700_000_000_123_456_789))
        item = items(make(root))["hand book/Größe & more.MD"]
        assert item.title == ""
        assert item.media_type == "text/markdown"
        assert item.version_tag == f"{path.stat().st_size}:1700000000123456789"
        assert item.uri == path.as_uri()
        assert item.uri.endswith("/hand%20book/Gr%C3%B6%C3%9Fe%20%26%20more.MD")
        assert item.acl is None
        assert item.metadata == {
            "path": "hand book/Größe & more.MD",
            "folder": "hand book",
            "extension": "md",
            "size": path.stat().st_size,
            "modified_at": "2023-11-14T22:13:20Z",
        }

    @pytest.mark.parametrize(
        ("name", "media_type"),
        [
            ("a.md", "text/markdown"),
            ("a.rst", "text/x-rst"),
            ("a.txt", "text/plain"),
            ("a.HTML", "text/html"),
            ("a.pdf", "application/pdf"),
            ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
            ("a.pptx", "application/vnd.openxmlformats-officedocument.presentationml.presentation"),
            ("a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
            ("a.csv", "text/csv"),
            ("a.eml", "message/rfc822"),
            ("a.epub", "application/epub+zip"),
            ("a.odt", "application/vnd.oasis.opendocument.text"),
            ("a.rtf", "application/rtf"),
            ("a.json", "application/json"),
            ("a.tar.gz", None),
            ("README", None),
            ("data:text,html", None),
        ],
    )
    def test_media_type_goes_by_the_extension(self, root: Path, name: str, media_type: str | None) -> None:
        write(root, name)
        assert items(make(root))[name].media_type == media_type

    def test_the_id_is_the_exact_name(self, root: Path) -> None:
        name = unicodedata.normalize("NFD", "Café") + "\n\x1b[31m\u202e red.md"
        write(root, name)
        item = items(make(root))[name]
        assert item.external_id == name
        assert item.read() == f"content of {name}".encode()

    def test_names_that_differ_in_unicode_form_only_are_two_items(self, root: Path) -> None:
        write(root, "Caf\u00e9.md", "Cafe\u0301.md")
        if len(list(root.iterdir())) < 2:
            pytest.skip("this file system takes both forms for the same name")
        assert {name: item.read().decode() for name, item in items(make(root)).items()} == {
            "Caf\u00e9.md": "content of Caf\u00e9.md",
            "Cafe\u0301.md": "content of Cafe\u0301.md",
        }

    @pytest.mark.parametrize("seconds", [-62_135_596_801, -1, 2**33, 253_402_300_800])
    def test_a_time_out_of_range_of_dates_is_left_out(self, root: Path, seconds: int) -> None:
        write(root, "a.md")
        try:
            os.utime(root / "a.md", (0, seconds))
        except OverflowError:
            pytest.skip("this platform cannot set such a time")
        item = items(make(root))["a.md"]
        stored = (root / "a.md").stat().st_mtime_ns // 10**9
        in_range = -62_135_596_800 <= stored < 253_402_300_800
        assert ("modified_at" in item.metadata) is in_range

    def test_empty_files_are_items_too(self, root: Path) -> None:
        (root / "empty.md").touch()
        assert items(make(root))["empty.md"].read() == b""


class TestFailures:
    def test_a_file_over_the_limit_is_reported_with_what_to_do(self, root: Path) -> None:
        write(root, "a.md", "b.md")
        (root / "big.md").write_bytes(b"x" * 101)
        (root / "fits.md").write_bytes(b"x" * 100)
        connector = make(root, max_file_bytes=100)
        found = [change for change in connector.changes(None) if isinstance(change, Failure)]
        assert [(failure.external_id, failure.code) for failure in found] == [("big.md", "too_large")]
        assert "max_file_bytes" in found[0].message
        assert set(items(connector)) == {"a.md", "b.md", "fits.md"}

    def test_a_file_that_outgrows_the_limit_after_the_listing_is_not_cut_but_refused(self, root: Path) -> None:
        (root / "log.md").write_bytes(b"x" * 100)
        item = items(make(root, max_file_bytes=100))["log.md"]
        (root / "log.md").write_bytes(b"x" * 101)
        assert failure_of(item) == "too_large"

    def test_a_vanished_file_is_skipped(self, root: Path) -> None:
        write(root, "a.md", "b/c.md")
        found = items(make(root))
        (root / "a.md").unlink()
        (root / "b/c.md").unlink()
        (root / "b").rmdir()
        assert {name: failure_of(item) for name, item in found.items()} == {"a.md": "vanished", "b/c.md": "vanished"}

    @pytest.mark.parametrize(
        ("number", "code"), [(errno.EACCES, "unreadable"), (errno.EIO, "unreadable"), (errno.ENOENT, "vanished")]
    )
    def test_trouble_with_one_file_skips_that_file(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str
    ) -> None:
        write(root, "a.md", "b.md")
        found = items(make(root))
        fail_open(monkeypatch, "a.md", number)
        assert failure_of(found["a.md"]) == code
        assert found["b.md"].read() == b"content of b.md"

    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ESTALE, errno.ETIMEDOUT])
    def test_trouble_with_the_machine_is_no_fault_of_the_file(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        write(root, "a.md")
        found = items(make(root))
        fail_open(monkeypatch, "a.md", number)
        with pytest.raises(RetryableSourceError):
            found["a.md"].read()

    def test_a_share_lost_between_listing_and_reading_stops_the_sync(self, root: Path) -> None:
        write(root, "a.md")
        item = items(make(root))["a.md"]
        root.rename(root.with_name("elsewhere"))
        with pytest.raises(FatalSourceError) as caught:
            item.read()
        assert caught.value.code == "root_missing"

    def test_a_name_that_is_no_text_is_reported_in_escaped_form(self, root: Path) -> None:
        write(root, "a.md")
        try:
            Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.md")).write_text("latin-1")
            Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")).mkdir()
        except OSError:
            pytest.skip("this file system has no such names")
        write(Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9")), "inside.md")
        assert failures(make(root)) == {r"caf\xe9": "undecodable_name", r"caf\xe9.md": "undecodable_name"}
        assert list(items(make(root))) == ["a.md"]

    def test_a_cursor_can_be_stored_whatever_the_names(self, root: Path) -> None:
        write(root, "a.md")
        try:
            for n in range(250):
                Path(os.fsdecode(os.fsencode(root) + b"/b\xe9%d.md" % n)).touch()
        except OSError:
            pytest.skip("this file system has no such names")
        cursors = [dict(change.cursor) for change in make(root).changes(None) if isinstance(change, Checkpoint)]
        assert [json.loads(json.dumps(cursor, ensure_ascii=False).encode()) for cursor in cursors] == cursors
        assert len(cursors) == 4

    def test_a_path_too_long_to_be_an_id_is_reported_under_a_short_one(self, root: Path) -> None:
        write(root, "a.md")
        folder = os.open(root, os.O_RDONLY)
        for _ in range(20):  # 20 * 250 bytes: longer than any system call takes as one path
            os.mkdir("d" * 250, dir_fd=folder)
            below = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        os.close(folder)
        found = failures(make(root))
        assert list(found.values()) == ["path_too_long"]
        assert all(len(name) < 1024 for name in found)
        assert list(items(make(root))) == ["a.md"]

    def test_a_tree_deeper_than_the_stack_is_walked(self, root: Path) -> None:
        write(root, "/".join("d" * 500) + "/x")
        assert [name.count("/") for name in items(make(root))] == [500]

    def test_failures_count_towards_the_total(self, root: Path) -> None:
        write(root, "a.md")
        (root / "big.md").write_bytes(b"x" * 101)
        first = next(make(root, max_file_bytes=100).changes(None))
        assert isinstance(first, Checkpoint)
        assert first.total == 2


class TestFolders:
    def test_a_missing_root_is_fatal(self, root: Path) -> None:
        assert fatal(make(root / "missing")) == ("root_missing", "root_missing")

    def test_a_file_as_root_is_fatal(self, root: Path) -> None:
        write(root, "a.md")
        assert fatal(make(root / "a.md")) == ("root_not_a_folder", "root_not_a_folder")

    def test_a_root_behind_a_symlink_is_fatal_and_the_error_says_what_to_write(self, root: Path) -> None:
        write(root, "docs/a.md")
        (root.parent / "link").symlink_to(root)
        connector = make(root.parent / "link" / "docs")
        assert fatal(connector) == ("root_is_symlink", "root_is_symlink")
        with pytest.raises(FatalSourceError, match=f"Set root to '{root / 'docs'}'"):
            connector.check()

    def test_an_empty_root_is_taken_for_an_unmounted_share(self, root: Path) -> None:
        assert fatal(make(root)) == ("root_empty", "root_empty")

    def test_a_root_with_nothing_that_matches_is_an_empty_listing(self, root: Path) -> None:
        write(root, ".keep")
        assert make(root).check().items == 0
        assert [change for change in make(root).changes(None) if not isinstance(change, Checkpoint)] == []

    @pytest.mark.parametrize(
        ("number", "error"),
        [
            (errno.EACCES, FatalSourceError),
            (errno.EPERM, FatalSourceError),
            (errno.EIO, RetryableSourceError),
            (errno.ESTALE, RetryableSourceError),
            (errno.EMFILE, RetryableSourceError),
            (errno.ELOOP, RetryableSourceError),
            (errno.ENOTDIR, RetryableSourceError),
        ],
    )
    def test_one_that_cannot_be_listed_stops_the_sync_and_is_named(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[SourceError]
    ) -> None:
        write(root, "a.md", "closed/b.md", "z.md")
        fail_open(monkeypatch, "closed", number)
        with pytest.raises(error, match="'closed'"):
            list(make(root).changes(None))

    @pytest.mark.parametrize(("number", "stops"), [(errno.EACCES, True), (errno.EIO, True), (errno.ENOENT, False)])
    def test_a_file_whose_status_cannot_be_had_stops_the_sync_unless_it_is_gone(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, number: int, stops: bool
    ) -> None:
        write(root, "a.md", "b.md")
        real = os.scandir

        class Entry:
            name = "b.md"

            def stat(self, *, follow_symlinks: bool) -> os.stat_result:
                raise OSError(number, os.strerror(number))

        @contextmanager
        def scandir(folder: int) -> Iterator[list[Any]]:
            with real(folder) as entries:
                yield [Entry() if entry.name == "b.md" else entry for entry in entries]

        monkeypatch.setattr(os, "scandir", scandir)
        if stops:
            with pytest.raises(SourceError):
                make(root).check()
        else:
            assert list(items(make(root))) == ["a.md"]

    def test_one_that_cannot_be_listed_can_be_excluded(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, "a.md", "closed/b.md")
        fail_open(monkeypatch, "closed", errno.EACCES)
        assert list(items(make(root, exclude=["closed"]))) == ["a.md"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
    def test_a_real_lack_of_rights_stops_the_sync(self, root: Path) -> None:
        write(root, "closed/b.md")
        (root / "closed").chmod(0)
        try:
            assert fatal(make(root)) == ("folder_unreadable", "folder_unreadable")
        finally:
            (root / "closed").chmod(0o700)

    def test_one_that_was_removed_during_the_listing_holds_nothing(self, root: Path) -> None:
        write(root, "a.md", "b/c.md", "d.md")
        changes = make(root).changes(None)
        assert isinstance(next(changes), Checkpoint)
        first = next(changes)
        (root / "b/c.md").unlink()
        (root / "b").rmdir()
        rest = list(changes)
        assert [change.item.external_id for change in [first, *rest] if isinstance(change, Upsert)] == ["a.md", "d.md"]

    @pytest.mark.parametrize(
        ("left", "code"), [(None, "root_empty"), ("another", "folder_replaced"), ("none", "root_missing")]
    )
    @pytest.mark.parametrize("listed", [1, 150, 250])
    def test_a_share_that_goes_during_the_listing_has_deleted_nothing(
        self, root: Path, left: str | None, code: str, listed: int
    ) -> None:
        """What is left: the folder, empty; another one in its place, with something in it; nothing at all."""
        write(root, *(f"d{n // 10:02}/{n}.md" for n in range(250)))
        seen, kept = 0, []
        with pytest.raises(SourceError) as caught:
            for change in make(root).changes(None):
                kept += [change] if isinstance(change, Checkpoint) else []
                seen += isinstance(change, Upsert)
                if seen == listed and isinstance(change, Upsert):
                    share_goes(root, left)
        assert caught.value.code == code
        assert len(kept) == 1 + listed // 100
        assert not any(checkpoint.complete for checkpoint in kept)

    def test_a_listing_does_not_go_on_in_another_folder(self, root: Path) -> None:
        write(root, *(f"{n:03}.md" for n in range(150)))
        listed = [change for change in make(root).changes(None) if isinstance(change, Checkpoint)]
        assert len(list(items(make(root), listed[1].cursor))) == 50
        share_goes(root, "another")
        with pytest.raises(FatalSourceError) as caught:
            list(make(root).changes(listed[1].cursor))
        assert caught.value.code == "folder_replaced"

    def test_descriptors_are_given_back(self, root: Path) -> None:
        write(root, "a.md", "b/c/d.md")
        connector = make(root)
        before = open_descriptors()
        for item in items(connector).values():
            item.read()
        fatal(make(root / "missing" / "deeper"))
        (root / "b").rename(root / "moved")
        (root / "b").symlink_to("moved")
        listing = connector.changes(None)
        next(listing)
        listing.close()  # type: ignore[attr-defined]  # a generator, which the port need not promise
        assert open_descriptors() == before


class TestOrderAndResuming:
    def test_order_is_by_parts_of_the_path(self, root: Path) -> None:
        names = ["a", "a b/x", "a.txt", "aa/z", "b/a/z", "b/b", "b.md", "Z", "é"]
        write(root, *names)
        assert list(items(make(root))) == sorted(names, key=lambda name: name.split("/"))

    def test_a_checkpoint_follows_each_hundredth_item_and_names_it(self, root: Path) -> None:
        write(root, *(f"{n % 3}/{n:03}" for n in range(250)))
        seen = list(make(root).changes(None))
        places = [place for place, change in enumerate(seen) if isinstance(change, Checkpoint)]
        assert places == [0, 101, 202, 253]
        for place in places[1:-1]:
            change, before = seen[place], seen[place - 1]
            assert isinstance(change, Checkpoint)
            assert isinstance(before, Upsert)
            assert change.cursor["after"] == before.item.external_id
            assert change.total == 250

    def test_the_total_is_counted_once_per_listing(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, *(f"{n}/x" for n in range(20)))
        listed = count_listings(monkeypatch)
        first = next(make(root).changes(None))
        assert isinstance(first, Checkpoint)
        assert len(listed) == 21
        next(make(root).changes(first.cursor))
        assert len(listed) == 21

    def test_folders_done_before_are_not_listed_again(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(root, *(f"{n:02}/x" for n in range(20)))
        listed = count_listings(monkeypatch)
        assert list(items(make(root), {"after": "17/x", "total": 20})) == ["18/x", "19/x"]
        assert len(listed) == 5  # the root, 17 to see what else is in it, 18 and 19; the root once more at the end

    @pytest.mark.parametrize("cursor", [None, {}, {"after": ""}, {"after": 7}, {"page": "2"}, {"total": "many"}])
    def test_a_cursor_of_another_kind_starts_from_the_beginning(self, root: Path, cursor: dict[str, Any]) -> None:
        write(root, "a", "b")
        assert list(items(make(root), cursor)) == ["a", "b"]

    def test_after_every_path_of_a_random_tree_comes_exactly_the_rest(self, root: Path) -> None:
        chance = random.Random(7)
        folders = [[f"d{chance.randrange(4)}" for _ in range(chance.randrange(4))] for _ in range(60)]
        write(root, *("/".join([*folder, f"f{n}"]) for n, folder in enumerate(folders)))
        names = list(items(make(root)))
        assert len(names) == 60
        for place, name in enumerate(names):
            assert list(items(make(root), {"after": name})) == names[place + 1 :]

    def test_what_was_there_all_along_is_never_skipped_while_the_tree_changes(self, root: Path) -> None:
        lasting = [f"{n % 7}/{n:03}" for n in range(210)]
        write(root, *lasting)
        chance, seen, cursor, complete = random.Random(3), set[str](), None, False
        for round_ in range(200):
            changes = make(root).changes(cursor)
            for change in stop_after(chance.randrange(150), changes):
                if isinstance(change, Upsert):
                    seen.add(change.item.external_id)
                elif isinstance(change, Checkpoint):
                    cursor, complete = change.cursor, change.complete
            if complete:
                break
            write(root, f"{chance.randrange(7)}/new {round_}", f"new {round_}/x")
        assert complete
        assert seen >= set(lasting)


class TestCheck:
    def test_counts_no_further_than_needed(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("connectors.files.CHECK_LIMIT", 10)
        write(root, *(f"{n}.md" for n in range(15)))
        check = make(root).check()
        assert check.items == 10
        assert check.sample == ("0.md", "1.md", "10.md", "11.md", "12.md")

    def test_shows_names_without_control_characters(self, root: Path) -> None:
        write(root, "a\x1b[2J.md")
        assert make(root).check().sample == ("a [2J.md",)


class TestGuide:
    def test_names_every_field_and_every_default_exclude(self) -> None:
        guide = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text()
        fields = [f"`{name}`" for name in FilesConfig.model_fields]
        assert [text for text in (*fields, *(f"`{glob}`" for glob in DEFAULT_EXCLUDES)) if text not in guide] == []


def failure_of(item: Item) -> str:
    with pytest.raises(SkippableItemError) as caught:
        item.read()
    return caught.value.code


def fatal(connector: FilesConnector) -> tuple[str, str]:
    """The codes with which a check and a listing fail."""
    with pytest.raises(FatalSourceError) as check:
        connector.check()
    with pytest.raises(FatalSourceError) as listing:
        list(connector.changes(None))
    return check.value.code, listing.value.code


def share_goes(root: Path, left: str | None) -> None:
    gone = root.with_name("gone")
    if left is None:
        gone.mkdir()
        for folder in list(root.iterdir()):
            folder.rename(gone / folder.name)
        return
    root.rename(gone)
    if left == "another":
        write(root, "here.md")


def fail_open(monkeypatch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Opening this name fails from now on, as tests may run with rights that nothing is denied to."""
    real = os.open

    def failing(path: Any, *args: Any, **options: Any) -> int:
        if path == name:
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", failing)


def count_listings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    real, listed = os.scandir, list[Any]()

    def counting(folder: Any) -> Any:
        listed.append(folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", counting)
    return listed


def open_descriptors() -> int:
    return sum(1 for number in range(256) if _is_open(number))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def stop_after(count: int, changes: Iterator[Any]) -> Iterator[Any]:
    for _, change in zip(range(count), changes, strict=False):
        yield change
