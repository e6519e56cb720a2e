"""rag eval against a running service, as a team's own continuous integration calls it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import serving
from rag_service.settings import Settings

ADMIN_KEY = "evaluation-admin-key-0123456789"
TEXTS = {
    "leave": "Parental leave takes sixteen weeks for every parent.",
    "canteen": "The canteen opens at noon and serves turnip soup.",
    "bands": "Salary bands of the board, which few people may see.",
}
FINDABLE = """\
id,query,external_id,grade,expect_nothing,as_user,filter,min_score
leave,how many weeks of parental leave,leave,3,,,,
soup,turnip soup at the canteen,canteen,1,,,,
mine,salary bands of the board,bands,1,,"{""user"": ""boss"", ""groups"": []}",,
theirs,salary bands of the board,,,true,"{""user"": ""ada"", ""groups"": []}","{""secret"": true}",
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("texts")
    settings = Settings(
        data_dir=folder / "data", admin_key=ADMIN_KEY, embedder="hashing", rate_retrieve=0, trace_content=True
    )
    with serving(settings, "127.0.0.1", 0) as running:
        rag(running.url, "team", "create", "red")
        for name, text in TEXTS.items():
            (folder / f"{name}.md").write_text(text)
            readers = ("--user", "boss", "--metadata", "secret=true") if name == "bands" else ("--public",)
            rag(running.url, "document", "add", str(folder / f"{name}.md"), "--external-id", name, *readers)
        yield running.url


def rag(url: str, *arguments: str, exits: int = 0) -> Result:
    env: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    result = CliRunner().invoke(app, arguments, env=env | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY})
    assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def run(url: str, *arguments: str, exits: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rag(url, "eval", "run", *arguments, "--json", exits=exits).stdout)
    return found


@pytest.fixture
def table(tmp_path: Path) -> str:
    file = tmp_path / "golden.csv"
    file.write_text(FINDABLE)
    return str(file)


@pytest.fixture
def hopeless(tmp_path: Path) -> str:
    file = tmp_path / "hopeless.csv"
    file.write_text(FINDABLE.replace(",leave,3", ",canteen,3").replace(",canteen,1", ",nowhere,1"))
    return str(file)


def test_good_answers_pass_and_are_told_measure_by_measure(url: str, table: str) -> None:
    found = run(url, table, "--min", "ndcg@10=0.9", "--min", "recall@3=1", "--min", "abstention=1")
    assert found["passed"]
    assert found["metrics"] == {
        **dict.fromkeys(("ndcg@10", "recall@5", "recall@10", "recall@20", "mrr", "recall@3"), 1.0),
        "abstention": 1.0,
    }
    assert found["measured"]["abstention"] == 1
    shown = rag(url, "eval", "run", table, "--min", "mrr=0.5").stdout
    assert "ndcg@10" in shown
    assert "ok      mrr >= 0.5: is 1.0000 over 3 queries" in shown


def test_every_query_is_asked_with_the_rights_of_whom_it_names(url: str, table: str) -> None:
    found = {one["id"]: one for one in run(url, table)["results"]}
    assert found["mine"]["found"][0] == "bands"
    assert found["theirs"]["found"] == []
    assert found["theirs"]["scores"] == {"abstention": 1.0}


def test_a_key_that_may_not_ask_for_others_evaluates_nothing(url: str, table: str) -> None:
    key = json.loads(rag(url, "key", "create", "k", "--scope", "manage", "--json").stdout)["key"]
    refused = CliRunner().invoke(app, ["eval", "run", table], env={"RAG_URL": url, "RAG_API_KEY": key})
    assert refused.exit_code == 1
    assert "impersonate" in refused.stderr


def test_answers_below_a_threshold_exit_with_1_and_say_the_numbers(url: str, hopeless: str) -> None:
    failed = rag(url, "eval", "run", hopeless, "--min", "ndcg@10=0.9", "--min", "abstention=1", exits=1)
    assert "Not good enough. ndcg@10 >= 0.9: is 0." in failed.stderr
    assert "abstention" not in failed.stderr
    assert "FAILED  ndcg@10" in failed.stdout


def test_what_no_query_measures_fails(url: str, tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text("query,external_id\nparental leave,leave\n")
    assert "was not measured" in rag(url, "eval", "run", str(file), "--min", "abstention=0", exits=1).stderr


def test_a_run_is_held_against_an_earlier_one(url: str, table: str, hopeless: str, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text(rag(url, "eval", "run", table, "--json").stdout)
    assert run(url, table, "--baseline", str(baseline))["checks"] == [
        {"name": "at most 0 queries worse", "passed": True, "detail": "0 of 4 are"}
    ]
    (check,) = run(url, hopeless, "--baseline", str(baseline), "--max-worse", "1", exits=1)["checks"]
    assert (check["passed"], check["detail"]) == (False, "2 of 4 are: leave, soup")
    assert run(url, hopeless, "--baseline", str(baseline), "--max-worse", "2")["passed"]


def test_continuous_integration_gets_junit_and_markdown(url: str, hopeless: str, tmp_path: Path) -> None:
    files = ("--junit", str(tmp_path / "out" / "junit.xml"), "--markdown", str(tmp_path / "out" / "report.md"))
    rag(url, "eval", "run", hopeless, "--min", "ndcg@10=0.9", "--min", "abstention=1", *files, exits=1)
    (suite,) = ElementTree.parse(tmp_path / "out" / "junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    cases = {case.get("name"): case.find("failure") for case in suite.findall("testcase")}
    assert cases["abstention >= 1"] is None
    failure = cases["ndcg@10 >= 0.9"]
    assert failure is not None
    assert "turnip soup" in (failure.text or "")
    assert {one.get("name") for one in suite.iter("property")} >= {"ndcg@10", "mrr"}
    report = (tmp_path / "out" / "report.md").read_text()
    assert "FAILED" in report.splitlines()[0]
    assert "| abstention >= 1 | ok |" in report
    assert "turnip soup" in report


def test_sets_go_in_and_out_as_files_and_are_run_by_name(url: str, table: str, tmp_path: Path) -> None:
    made = rag(url, "eval", "import", table, "--name", "golden", "--collection", "default")
    assert "golden: 4 queries about default." in made.stdout
    assert "already" in rag(url, "eval", "import", table, "--name", "golden", exits=1).stderr
    rag(url, "eval", "import", table, "--name", "golden", "--replace")
    assert "golden" in rag(url, "eval", "sets").stdout
    of_set = run(url, "golden", "--min", "ndcg@10=0.9")
    assert of_set["passed"]
    for target in ("beir", "set.zip", "set.tar.gz", "set.csv"):
        rag(url, "eval", "export", "golden", str(tmp_path / target))
        again = run(url, str(tmp_path / target))
        assert again["metrics"] == of_set["metrics"]
        assert {one["id"] for one in again["results"]} == {"leave", "soup", "mine", "theirs"}
    assert (tmp_path / "beir" / "qrels" / "test.tsv").read_text().startswith("query-id\tcorpus-id\tscore\n")


def test_the_shortest_table_there_is_gives_each_question_its_own_documents(url: str, tmp_path: Path) -> None:
    file = tmp_path / "short.csv"
    file.write_text("query,external_id\nHow long is parental leave?,leave\nWhat is the soup of the day?,canteen\n")
    rag(url, "eval", "import", str(file), "--name", "short")
    of_set, of_file = run(url, "short"), run(url, str(file))
    assert of_set["metrics"] == of_file["metrics"]
    assert of_set["metrics"]["recall@5"] == 1.0
    rag(url, "eval", "export", "short", str(tmp_path / "out.csv"))
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--min", "ndcg=1"), "is no measure"),
        (("--min", "recall@21=1"), "is no measure"),
        (("--min", "mrr=much"), "--min ndcg@10=0.7"),
        (("--max-worse", "1"), "Worse than what?"),
        (("--baseline", "nowhere.json"), "no earlier run"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_asked(
    url: str, table: str, arguments: tuple[str, ...], said: str
) -> None:
    assert said in rag(url, "eval", "run", table, *arguments, exits=2).stderr


def test_a_set_is_made_of_feedback(url: str) -> None:
    found = json.loads(rag(url, "search", "turnip soup", "--json").stdout)
    said = {"query_id": found["query_id"], "document_id": found["results"][0]["document_id"], "rating": "like"}
    headers = {"Authorization": f"Bearer {ADMIN_KEY}", "X-Rag-Team": "red"}
    httpx.post(f"{url}/v1/feedback", json=said, headers=headers).raise_for_status()
    assert "liked: 1 queries about default." in rag(url, "eval", "from-feedback", "liked", "--min-likes", "1").stdout
    assert run(url, "liked", "--min", "mrr=1")["passed"]
    assert "RAG_TRACE_CONTENT" in rag(url, "eval", "from-feedback", "loved", "--min-likes", "2", exits=2).stderr


def test_a_set_or_file_that_is_not_there_is_named(url: str, tmp_path: Path) -> None:
    assert "no such query set" in rag(url, "eval", "run", "leaden", exits=1).stderr
    assert "no file or folder" in rag(url, "eval", "run", "nowhere/golden.csv", exits=2).stderr
    (tmp_path / "broken.csv").write_text("question\nx\n")
    assert "row 2" in rag(url, "eval", "run", str(tmp_path / "broken.csv"), exits=2).stderr
    assert "BEIR" in rag(url, "eval", "run", str(tmp_path), exits=2).stderr
