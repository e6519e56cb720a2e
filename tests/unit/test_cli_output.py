"""What is written: harmless to a terminal, JSON where asked for, and options read as meant."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from rag_service.cli import options
from rag_service.cli.failure import MISUSED, CommandFailed
from rag_service.cli.output import Output, moment, printable
from rag_service.cli.progress import Progress
from rag_service.cli.search import show_results

RESULT = {
    "rank": 1,
    "score": 0.91234,
    "title": "Leave [bold]policy[/bold]\x1b[2J",
    "external_id": "leave.md",
    "uri": "file:///srv/leave.md",
    "heading_path": ["Leave", "Parents"],
    "position": {"start": 0, "end": 40, "page": 3},
    "text": "Nobody asked. Parents get 20 weeks. The end.",
    "highlights": [{"start": 14, "end": 35}],
}


def answer(*results: dict[str, Any], degraded: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"results": list(results), "usage": {"total_ms": 12.3}, "degraded": list(degraded)}


def test_a_result_shows_rank_score_title_page_headings_address_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(Output(), answer(RESULT))

    shown = capsys.readouterr().out
    for part in (
        "1. ",
        "0.912",
        "page 3",
        "Leave > Parents",
        "file:///srv/leave.md",
        RESULT["text"],
        "1 result in 12 ms",
    ):
        assert str(part) in shown


def test_what_a_document_says_of_itself_is_no_markup_and_no_command_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_results(Output(), answer(RESULT))

    shown = capsys.readouterr().out
    assert "[bold]policy[/bold]" in shown
    assert "\x1b" not in shown


def test_a_passage_is_indented_wraps_and_loses_its_empty_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rag_service.cli.output._PIPE_WIDTH", 40)
    show_results(Output(), answer({**RESULT, "text": "One.\n\n\n" + "word " * 20, "highlights": []}))

    passage = capsys.readouterr().out.split("leave.md\n")[1].split("\n\n")[0].splitlines()
    assert passage[0] == "   One."
    assert len(passage) == 4
    assert all(line.startswith("   word") and len(line) <= 40 for line in passage[1:])


def test_the_best_sentences_stand_out_on_a_terminal() -> None:
    output = Output()
    output.__dict__["console"] = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=80)
    show_results(output, answer(RESULT))

    assert "\x1b[1mParents get 20 weeks.\x1b[0m" in output.console.file.getvalue()  # type: ignore[attr-defined] # a StringIO


def test_an_empty_answer_and_a_degraded_one_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    show_results(Output(), answer(degraded=("the dense leg is away",)))

    out, err = capsys.readouterr()
    assert "Nothing found" in out
    assert "the dense leg is away" in err


@given(st.text())
def test_no_text_can_hold_a_control_character_when_it_is_shown(text: str) -> None:
    assert not [each for each in printable(text) if (ord(each) < 32 and each not in "\t\n") or 127 <= ord(each) < 160]


def test_values_are_shown_as_people_write_them() -> None:
    assert printable(None) == "-"
    assert printable(True) == "yes"
    assert printable([]) == "-"
    assert printable(["a", 1]) == "a, 1"
    assert printable({"ready": 3, "failed": 0}) == "ready=3, failed=0"
    assert moment("2026-01-02T03:04:05.678901Z") == "2026-01-02 03:04:05"


def test_json_is_all_there_is_on_stdout_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(as_json=True)
    output.data({"title": "Grüße"})
    output.show("for people")
    output.table(("A",), [["b"]], "none")
    output.fields({"a": "b"})
    with output.progress("Working") as progress:
        progress.update(1, 2)

    out, err = capsys.readouterr()
    assert json.loads(out) == {"title": "Grüße"}
    assert err == ""


def test_a_failure_goes_to_stderr_with_its_fix_and_the_problem_to_those_who_asked_for_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    failed = CommandFailed("It broke.", "Mend it.", problem={"status": 404})
    Output().failure(failed)
    assert capsys.readouterr() == ("", "Error: It broke.\nMend it.\n")

    Output(as_json=True).failure(failed)
    assert json.loads(capsys.readouterr().out) == {"status": 404}


def test_a_table_keeps_ids_whole_in_a_pipe_and_says_what_to_do_when_it_is_empty(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "doc_" + "0123456789abcdef" * 2
    Output().table(("ID", "Title"), [[name, "A rather long title " * 5]], "none")
    Output().table(("ID",), [], "Add one.")

    out = capsys.readouterr().out
    assert name in out
    assert out.endswith("Add one.\n")


def test_progress_in_a_pipe_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 7.0, 7.0, 7.0, 7.5])
    monkeypatch.setattr("rag_service.cli.progress.time.monotonic", lambda: next(moments, 8.0))
    file = io.StringIO()

    with Progress("Importing", Console(file=file, width=100)) as progress:
        for done in (1, 70, 75):
            progress.update(done, 100)

    assert file.getvalue().splitlines() == ["Importing: 70/100 documents, 10.0/s"]


def test_progress_on_a_terminal_is_a_bar_with_the_rate() -> None:
    file = io.StringIO()

    with Progress("Importing", Console(file=file, width=120, force_terminal=True)) as progress:
        progress.update(70, 100)

    assert "70/100 documents" in file.getvalue()
    assert "documents/s" in file.getvalue()


@pytest.mark.parametrize(
    ("given", "value"),
    [("year=2026", 2026), ("ok=true", True), ('tags=["a"]', ["a"]), ("name=a=b", "a=b"), ("x=", ""), ("x=NaN", "NaN")],
)
def test_a_value_that_is_json_is_read_as_such_and_any_other_is_text(given: str, value: object) -> None:
    (read,) = options.pairs([given], "--config").values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("given", ["", "key", "=value"])
def test_what_is_no_pair_is_refused_with_how_to_write_it(given: str) -> None:
    with pytest.raises(CommandFailed) as refused:
        options.pairs([given], "--metadata")
    assert refused.value.exit_code == MISUSED
    assert "--metadata key=value" in refused.value.fix


def test_no_reader_means_no_acl_and_any_reader_makes_one() -> None:
    assert options.acl(False, None, []) is None
    assert options.acl(True, None, None) == {
        "public": True,
        "users": [],
        "groups": [],
        "deny_users": [],
        "deny_groups": [],
    }
    assert (options.acl(False, ["ada"], None, None, ["interns"]) or {})["deny_groups"] == ["interns"]


def test_only_what_was_not_given_is_left_to_the_service() -> None:
    assert options.given(name="", top_k=0, public=False, groups=[], mode=None) == {
        "name": "",
        "top_k": 0,
        "public": False,
        "groups": [],
    }


@pytest.mark.parametrize("given", ["{", "[]", "1", "null"])
def test_a_filter_that_is_no_json_object_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(CommandFailed, match="no JSON object") as refused:
        options.json_object(given, "--filter", '{"a": 1}')
    assert '{"a": 1}' in refused.value.fix
