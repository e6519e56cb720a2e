"""Whatever lies in a folder, and whatever is swapped while it is read, nothing outside the folder is read.

Every attack gets a root beside a folder of secrets. It arranges the tree, the connector lists it, the attack may then
swap things, and every listed item is read. A secret that shows, in bytes or in a name, is a leak. The same attacks are
run against two careless ways of reading, which must leak: else this test would prove nothing.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from connectors.base import Checkpoint, Failure, Upsert
from connectors.errors import RetryableSourceError, SkippableItemError, SourceError
from connectors.files import FilesConfig, FilesConnector
from connectors.folders import Root

SECRET = b"the secret of another team"
SECRET_NAME = "payroll.md"


@dataclass(frozen=True)
class Box:
    """A root with an honest file, beside a folder of secrets with the same shape."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def build(self) -> None:
        for name in ("honest.md", "a/honest.md", "a/b/honest.md", "a/b/c/honest.md"):
            for top, content in ((self.root, b"honest"), (self.outside, SECRET)):
                (top / name).parent.mkdir(parents=True, exist_ok=True)
                (top / name).write_bytes(content)
        (self.outside / SECRET_NAME).write_bytes(SECRET)

    def swap(self, name: str, replace: Callable[[Path], object]) -> None:
        """Move what is at `name` in the root away and put something else in its place."""
        (self.root / name).rename(self.folder / "moved away")
        replace(self.root / name)


def nothing(_box: Box) -> None: ...


@dataclass(frozen=True)
class Attack:
    kind: str
    name: str
    arrange: Callable[[Box], object] = nothing
    swap: Callable[[Box], object] = nothing


# --- attacks ------------------------------------------------------------------------------

# Names of honest files that careless code might read as something else.
HOSTILE_NAMES: tuple[str | bytes, ...] = (
    *("...", "....", ".. ", "..;", "..\\", "..\\..\\outside\\payroll.md", "..%2foutside%2fpayroll.md"),
    *("%2e%2e%2f", "..%c0%af", "..%252f", "\\..\\x", "%00", "a%00.md", "a;b", "a&b", "a|b", "a>b", "a<b"),
    *("`id`", "$(id)", "$HOME", "${HOME}", "~", "~root", "-", "-rf", "--", "*", "?", "[a]", "{a,b}", "!"),
    *("#", "a#b", "a?b=c", "a:b", ":", "::$DATA", "C:", "C:\\outside", "\\\\server\\share\\payroll.md"),
    *("\\\\?\\C:\\x", "//", "con", "NUL", "aux.md", "com1", "LPT1", "file:", "http:", "data:text,x"),
    *("javascript:x", "'", '"', "';--", "<script>", "{{x}}", "%s%n", "{0}", "\\u002e", " ", "  ", " a", "a "),
    *("a.", ".a", "a\tb", "a\nb", "\n", "\r\n", "a\rb", "\x7f", "\x1b[2J", "\x1b]0;x\x07", "\x85", "\u2028"),
    *("\u2029", "\u00a0", "\u200b", "\u202egpj.md", "\u2066x", "\ufeff", "\ufffd", "\uffff", "\ue000"),
    *("\U000e0001", "\u2024\u2024", "\uff0e\uff0e", "\uff0e\uff0e\uff0fpayroll", "\u2215", "\u2044etc"),
    *("\u29f8", "..\u2215outside", "Caf\u00e9", "Cafe\u0301", "\u212b", "\u00c5", "\ufb01", "\u1e9e"),
    *("\u0130", "\u0131", "\u017f", "\uac00", "\u1100\u1161", "\U0001f4c4", "\U0001f469\u200d\U0001f4bb"),
    *("a" + "\u0301" * 40, "\u05e9\u05dc\u05d5\u05dd", "\u6587\u4ef6", "x" * 255, b"\xff"),
    *(b"\xc0\xae\xc0\xae", b"caf\xe9.md", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\x80b", b"\xfe\xff"),
    *(f"{chr(code)}x" for code in range(1, 32)),
)  # fmt: skip


def named(name: str | bytes) -> Attack:
    def arrange(box: Box) -> None:
        raw = name if isinstance(name, bytes) else name.encode()
        for folder in (box.root, box.root / "a" / "b"):
            path = os.fsencode(folder) + b"/" + raw.replace(b"/", b"_")
            with (
                suppress(FileExistsError),
                os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY), "wb") as file,
            ):
                file.write(b"honest")

    return Attack("name", repr(name), arrange)


def linked(where: str, target: str, *, swapped: bool = False) -> Attack:
    """A symlink at `where`, there from the start or put in place of an honest file or folder after the listing."""

    def link(path: Path, box: Box) -> None:
        path.symlink_to(target.format(outside=box.outside, root=box.root, box=box.folder))

    if swapped:
        return Attack("swap", f"{where} -> {target}", swap=lambda box: box.swap(where, lambda path: link(path, box)))
    return Attack("symlink", f"{where} -> {target}", lambda box: link(box.root / where, box))


def put(where: str, what: str, make: Callable[[Path], object], *, swapped: bool) -> Attack:
    if swapped:
        return Attack("special", f"{where} becomes {what}", swap=lambda box: box.swap(where, make))
    return Attack("special", f"{where} is {what}", lambda box: make(box.root / where))


FILE_TARGETS = (
    "{outside}/payroll.md",
    "../outside/payroll.md",
    "../root/../outside/payroll.md",
    "a/../../outside/payroll.md",
    "./.././outside//payroll.md",
    "/proc/self/root{outside}/payroll.md",
    "/proc/self/cwd/../../../../../../../../..{outside}/payroll.md",
    "//{outside}/payroll.md",
    "/etc/passwd",
    "/proc/self/environ",
    "missing",
    "self",
    ".",
    "..",
    "/",
    "/dev/zero",
)
FOLDER_TARGETS = (
    "{outside}",
    "../outside",
    "../root/../outside",
    "/proc/self/root{outside}",
    "{box}",
    "..",
    "../..",
    ".",
    "{root}",
    "/etc",
    "/proc/self/fd",
    "missing",
)


def loop(box: Box) -> None:
    (box.root / "one").symlink_to("two")
    (box.root / "two").symlink_to("one")
    (box.root / "a" / "up").symlink_to("..")
    (box.root / "deep").symlink_to("deep/deep")


def chain(box: Box) -> None:
    (box.root / "first.md").symlink_to("second.md")
    (box.root / "second.md").symlink_to("a/third.md")
    (box.root / "a" / "third.md").symlink_to(box.outside / "payroll.md")


def through_honest_looking_parent(box: Box) -> None:
    (box.root / "shared").symlink_to("a/up")
    (box.root / "a" / "up").symlink_to(box.outside)


def swap_root(box: Box) -> None:
    box.root.rename(box.folder / "moved away")
    box.root.symlink_to(box.outside)


def listen(path: Path) -> None:
    os.mknod(path, stat.S_IFSOCK | 0o600)


ATTACKS = (
    *(named(name) for name in HOSTILE_NAMES),
    *(linked("link.md", target) for target in FILE_TARGETS),
    *(linked("a/b/link.md", target) for target in FILE_TARGETS[:4]),
    *(linked("folder", target) for target in FOLDER_TARGETS),
    *(linked("a/folder", target) for target in FOLDER_TARGETS[:5]),
    *(linked("honest.md", target, swapped=True) for target in FILE_TARGETS),
    *(linked("a/b/c/honest.md", target, swapped=True) for target in FILE_TARGETS[:1]),
    *(linked("a", target, swapped=True) for target in ("{outside}/a", "../outside/a", "{box}/outside/a")),
    *(linked("a/b", target, swapped=True) for target in ("{outside}/a/b", "../../outside/a/b")),
    *(linked("a/b/c", target, swapped=True) for target in ("{outside}/a/b/c", "../../../outside/a/b/c")),
    Attack("symlink", "loops", loop),
    Attack("symlink", "a chain", chain),
    Attack("symlink", "a link to a link to a folder", through_honest_looking_parent),
    Attack("swap", "the root itself", swap=swap_root),
    *(put(where, "a pipe", os.mkfifo, swapped=where != "p") for where in ("p", "honest.md", "a/b/honest.md", "a/b")),
    *(put(where, "a socket", listen, swapped=where != "s") for where in ("s", "honest.md", "a/b")),
    *(put(where, "a folder", Path.mkdir, swapped=True) for where in ("honest.md", "a/b/c/honest.md")),
    *(put(where, "a file", Path.touch, swapped=True) for where in ("a", "a/b")),
)


# --- ways of reading ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TrustingRoot(Root):
    """Careless: whatever a path leads to is taken."""

    def scan(self, folder: str) -> list[tuple[str, os.stat_result]]:
        found = []
        for path in (self.path / folder).iterdir():
            with suppress(OSError):
                found.append((path.name, path.stat()))
        return found

    def read(self, path: str, limit: int) -> bytes:
        return plain_read(self.path / path, limit)


@dataclass(frozen=True, slots=True)
class ListingRoot(Root):
    """Careless: symlinks are left out of the listing, and what was listed is then opened by its path."""

    def read(self, path: str, limit: int) -> bytes:
        return plain_read(self.path / path, limit)


def plain_read(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(min(limit, 1_000_000))
    except OSError as error:
        raise SkippableItemError(str(error)) from error


def connector(box: Box, way: type[Root]) -> FilesConnector:
    made = FilesConnector(FilesConfig(root=box.root, default_excludes=False))
    made._root = way(box.root)
    return made


@dataclass
class Seen:
    """What came out of a source: names, and the bytes of each that could be read."""

    names: list[str]
    contents: dict[str, bytes]

    @property
    def leaks(self) -> list[str]:
        leaked = [name for name, content in self.contents.items() if SECRET in content or b"root:" in content]
        return leaked + [name for name in self.names if name.rpartition("/")[2] == SECRET_NAME]


def run(attack: Attack, box: Box, way: type[Root] = Root) -> Seen:
    box.build()
    attack.arrange(box)
    changes = [*connector(box, way).changes(None)]
    attack.swap(box)
    seen = Seen([], {})
    for change in changes:
        if isinstance(change, Upsert):
            seen.names.append(change.item.external_id)
            with suppress(SourceError):
                seen.contents[change.item.external_id] = change.item.read()
    return seen


# --- tests --------------------------------------------------------------------------------


def test_there_are_enough_attacks_and_no_two_are_the_same() -> None:
    assert len({(attack.kind, attack.name) for attack in ATTACKS}) == len(ATTACKS)
    assert len(ATTACKS) >= 200


@pytest.mark.parametrize("kind", ["name", "symlink", "swap", "special"])
def test_no_attack_reads_anything_outside(tmp_path: Path, kind: str) -> None:
    for number, attack in enumerate(attack for attack in ATTACKS if attack.kind == kind):
        box = Box(tmp_path / str(number))
        try:
            seen = run(attack, box)
        except OSError as error:
            assert kind == "name", f"{attack.name}: {error}"
            continue  # a file system without such names
        assert seen.leaks == [], attack.name
        assert set(seen.contents.values()) <= {b"honest"}, attack.name


def test_every_hostile_name_is_read_or_reported_once(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.build()
    for name in HOSTILE_NAMES:
        with suppress(OSError):  # a file system without such names
            named(name).arrange(box)
    changes = list(connector(box, Root).changes(None))
    read = [os.fsencode(change.item.external_id) for change in changes if isinstance(change, Upsert)]
    reported = [change for change in changes if isinstance(change, Failure)]
    on_disk = {
        os.path.relpath(os.path.join(os.fsencode(folder), file), os.fsencode(box.root))  # noqa: PTH118  # names are bytes
        for folder, _, files in os.walk(os.fsencode(box.root))
        for file in files
    }
    undecodable = {name for name in on_disk if name != name.decode(errors="replace").encode()}
    assert sorted(read) == sorted(on_disk - undecodable)
    assert len(reported) == len(undecodable)
    assert {failure.code for failure in reported} <= {"undecodable_name"}


@pytest.mark.parametrize("kind", ["symlink", "swap"])
def test_honest_neighbours_of_an_attack_are_still_read(tmp_path: Path, kind: str) -> None:
    honest = {"honest.md", "a/honest.md", "a/b/honest.md", "a/b/c/honest.md"}
    for number, attack in enumerate(attack for attack in ATTACKS if attack.kind == kind and "root" not in attack.name):
        place = attack.name.split(" -> ")[0]
        untouched = {name for name in honest if name != place and not name.startswith(f"{place}/")}
        assert set(run(attack, Box(tmp_path / str(number))).contents) == untouched, attack.name


@pytest.mark.parametrize(("way", "caught"), [(TrustingRoot, {"symlink", "swap"}), (ListingRoot, {"swap"})])
def test_careless_ways_of_reading_are_caught_by_the_same_attacks(
    tmp_path: Path, way: type[Root], caught: set[str]
) -> None:
    leaking = set[str]()
    # A pipe would hold a careless reader for ever, and a folder that contains itself a careless listing.
    endless = ("..", ".", "/", "{box}", "{root}", "/proc/self/fd", "/proc/self/environ", "/etc", "../..")
    for number, attack in enumerate(ATTACKS):
        if attack.kind in ("symlink", "swap") and not attack.name.endswith(tuple(f"-> {end}" for end in endless)):
            with suppress(SourceError):
                if run(attack, Box(tmp_path / str(number)), way).leaks:
                    leaking.add(attack.kind)
    assert leaking == caught


@pytest.mark.parametrize(
    "path",
    [
        "../outside/payroll.md",
        "a/../../outside/payroll.md",
        "/etc/passwd",
        "..",
        ".",
        "",
        "a//honest.md",
        "a/./honest.md",
    ],
)
def test_a_path_that_no_listing_gives_is_not_read(tmp_path: Path, path: str) -> None:
    box = Box(tmp_path)
    box.build()
    with pytest.raises(SkippableItemError):
        Root(box.root).read(path, 100)


def test_a_cursor_leads_nowhere_but_through_the_listing(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.build()
    for after in ("../outside", "/", "..", "a/../..", str(box.outside), "\0", "a/b/../../../outside"):
        found = [change for change in connector(box, Root).changes({"after": after}) if isinstance(change, Upsert)]
        assert all((box.root / change.item.external_id).is_file() for change in found)
        assert not any(".." in change.item.external_id for change in found)


def test_a_folder_swapped_during_the_listing_is_not_listed_outside(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.build()
    (box.root / "0.md").write_bytes(b"honest")
    changes = connector(box, Root).changes(None)
    assert isinstance(next(changes), Checkpoint)
    assert isinstance(next(changes), Upsert)  # by now the root has been listed, with `a` as a folder
    box.swap("a", lambda path: path.symlink_to(box.outside))
    with pytest.raises(RetryableSourceError):
        next(changes)


def test_a_pipe_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box(tmp_path)
    box.build()
    changes = list(connector(box, Root).changes(None))
    box.swap("honest.md", os.mkfifo)
    opened = list[str]()
    real = os.open

    def watching(path: str, flags: int, *args: int, **options: int) -> int:
        opened.append(path)
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", watching)
    for change in changes:
        if isinstance(change, Upsert) and change.item.external_id == "honest.md":
            with pytest.raises(SkippableItemError):
                change.item.read()
    assert opened
    assert "honest.md" not in opened


@pytest.mark.parametrize(
    "replace",
    [lambda path: path.symlink_to("../outside/payroll.md"), os.mkfifo, Path.mkdir],
    ids=["link", "pipe", "folder"],
)
def test_a_file_swapped_between_the_look_at_it_and_its_opening_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: Callable[[Path], object]
) -> None:
    box = Box(tmp_path)
    box.build()
    real = os.stat

    def swapping_stat(path: str, **options: bool) -> os.stat_result:
        status = real(path, **options)
        if path == "honest.md":
            box.swap("honest.md", replace)
        return status

    before = len(list(Path("/dev/fd").iterdir()))
    monkeypatch.setattr(os, "stat", swapping_stat)
    with pytest.raises(SkippableItemError) as caught:
        Root(box.root).read("honest.md", 100)
    assert caught.value.code == "vanished"
    assert len(list(Path("/dev/fd").iterdir())) == before


@pytest.mark.parametrize(("way", "leaks"), [(Root, False), (ListingRoot, True)])
@pytest.mark.parametrize("place", ["a", "a/b", "a/b/c/honest.md"])
def test_a_race_between_swapping_and_reading_is_lost_by_the_attacker(
    tmp_path: Path, place: str, way: type[Root], leaks: bool
) -> None:
    box = Box(tmp_path)
    box.build()
    listed = [change.item for change in connector(box, way).changes(None) if isinstance(change, Upsert)]
    deep = next(item for item in listed if item.external_id == "a/b/c/honest.md")
    outcomes = {"honest": 0, "leaked": 0, "refused": 0}
    awaited, deadline = "leaked" if leaks else "refused", time.monotonic() + 60
    with swapping(box, place):
        while (sum(outcomes.values()) < 2000 or not outcomes[awaited]) and time.monotonic() < deadline:
            try:
                outcomes["leaked" if SECRET in deep.read() else "honest"] += 1
            except SkippableItemError:
                outcomes["refused"] += 1
    assert outcomes[awaited], outcomes
    assert bool(outcomes["leaked"]) is leaks, outcomes


@contextmanager
def swapping(box: Box, name: str) -> Iterator[None]:
    """A thread that puts a folder and a symlink to its double outside in turn at `name`, as fast as it can."""
    place, kept, link = box.root / name, box.folder / "kept", box.folder / "link"
    link.symlink_to(box.outside / name)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            place.rename(kept)
            link.rename(place)
            place.rename(link)
            kept.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
