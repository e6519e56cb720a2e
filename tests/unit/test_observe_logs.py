"""What a line of the log says, and what it can never say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from rag_service.observe import logs
from rag_service.observe.context import about, carried, current, note
from rag_service.observe.logs import JsonLines, TextLines, fields

log = logging.getLogger("rag_service.test")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Puts the process's logging back: pytest has its own handlers on the root."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in ("rag_service", "workers", "connectors")]
    handlers, levels = root.handlers[:], [(logger, logger.level) for logger in (root, *ours)]
    root.handlers[:] = []  # so that `force` closes none of them
    yield
    root.handlers[:] = handlers
    for logger, level in levels:
        logger.setLevel(level)


def record(message: str = "said", error: BaseException | None = None, **known: object) -> logging.LogRecord:
    info = None if error is None else (type(error), error, error.__traceback__)
    made = log.makeRecord(log.name, logging.INFO, __file__, 1, message, (), info, extra=fields(**known))
    made.created = 1767225600.5
    return made


def test_a_json_line_has_time_level_logger_message_and_fields() -> None:
    assert json.loads(JsonLines().format(record(hits=3, code=None, stages_ms={"embed": 1.5}))) == {
        "time": "2026-01-01T00:00:00.500Z",
        "level": "info",
        "logger": "rag_service.test",
        "message": "said",
        "hits": 3,
        "stages_ms": {"embed": 1.5},
    }


def test_a_text_line_says_the_same() -> None:
    assert TextLines().format(record(hits=3)) == "2026-01-01T00:00:00.500Z INFO rag_service.test: said hits=3"


def test_a_line_names_the_work_it_belongs_to() -> None:
    with about(request_id="req_1", team=None):
        note(team="lab")
        with about(job_id="job_1"):
            inner = json.loads(JsonLines().format(record()))
        outer = json.loads(JsonLines().format(record()))
    assert (inner["request_id"], inner["team"], inner["job_id"]) == ("req_1", "lab", "job_1")
    assert (outer["request_id"], outer["team"]) == ("req_1", "lab")
    assert "job_id" not in outer
    assert not current()


def test_what_is_noted_inside_is_known_to_the_block_around_it_even_from_another_thread() -> None:
    with about(), ThreadPoolExecutor(1) as pool:
        pool.submit(copy_context().run, lambda: note(team="lab")).result()
        assert current() == {"team": "lab"}


def test_a_note_outside_of_any_work_is_of_no_effect() -> None:
    note(team="lab")
    assert not current()


def test_jobs_carry_the_request_and_nothing_of_its_key_or_team() -> None:
    with about(request_id="req_1", team="lab", key="key_1"):
        assert carried() == {"request_id": "req_1"}
    assert carried() == {}


def failed_with(message: str) -> BaseException:
    try:
        try:
            raise KeyError(message)
        except KeyError as error:
            raise ValueError(message) from error
    except ValueError as error:
        return error


@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_an_exception_is_told_by_types_and_places_never_by_what_it_says(lines: logging.Formatter) -> None:
    line = lines.format(record(error=failed_with("the text of a document")))
    assert "ValueError" in line
    assert "KeyError" in line
    assert "test_observe_logs.py" in line
    assert "failed_with" in line
    assert "document" not in line


def test_a_formatter_of_the_standard_library_would_tell_it() -> None:
    assert "the text of a document" in logging.Formatter().format(record(error=failed_with("the text of a document")))


def test_an_error_of_the_operating_system_says_which() -> None:
    (told,) = json.loads(JsonLines().format(record(error=OSError(28, "No space left on device", "/a/name"))))[
        "exception"
    ]
    assert told["type"] == "OSError (No space left on device)"


@pytest.mark.parametrize("evil", ["a\nb", "a\r\nb", "a\x1b[2Jb", "a\u2028b", "a\x00b", "a\ud800b"])
@pytest.mark.parametrize("lines", [JsonLines(), TextLines()])
def test_nobody_can_write_a_line_of_the_log(lines: logging.Formatter, evil: str) -> None:
    line = lines.format(record(f"said {evil}", name_of_theirs=evil))
    assert len(line.splitlines()) == 1
    assert line.isprintable()
    line.encode()


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", io.StringIO(), True),
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_the_form_is_text_on_a_terminal_json_elsewhere_or_as_said(
    form: logs.Format, stream: io.StringIO, is_json: bool
) -> None:
    logs.start("info", form, stream)
    log.info("said")
    assert stream.getvalue().startswith("{") == is_json


def test_ours_are_written_from_the_level_up_and_libraries_only_from_warnings_up() -> None:
    stream = io.StringIO()
    logs.start("debug", "json", stream)
    log.debug("ours")
    logging.getLogger("workers.x").debug("ours too")
    logging.getLogger("some_library").info("theirs")
    logging.getLogger("some_library").warning("their warning")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "ours",
        "ours too",
        "their warning",
    ]


def test_starting_again_replaces_what_was_there() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.start("info", "json", first)
    logs.start("error", "text", second)
    log.warning("below")
    log.error("said")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
