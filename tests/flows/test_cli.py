"""The commands against a running service: what they do, what they say, and how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag_service.cli import app
from rag_service.cli.serving import serving
from rag_service.settings import Settings

ADMIN_KEY = "command-line-admin-key-0123456789"
Rag = Callable[..., Result]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), admin_key=ADMIN_KEY, embedder="hashing", sweep_s=0.5)
    with serving(settings, "127.0.0.1", 0) as running:
        yield running.url


@pytest.fixture(scope="module")
def team(url: str) -> str:
    invoke(url, "team", "create", "staff", "--name", "All staff")
    return "staff"


def invoke(url: str, *arguments: str, input: str | None = None, **environment: str) -> Result:  # noqa: A002 - as CliRunner calls it
    settings: dict[str, str | None] = dict.fromkeys(("RAG_API_KEY", "RAG_TEAM", "RAG_DATA_DIR"))
    env = settings | {"RAG_URL": url, "RAG_ADMIN_KEY": ADMIN_KEY} | environment
    return CliRunner().invoke(app, arguments, input=input, env=env)


@pytest.fixture
def rag(url: str, team: str) -> Rag:
    """`rag` with the admin key; the test fails unless it exits as expected (with 0, if nothing is said)."""

    def run(*arguments: str, exits: int = 0, **options: Any) -> Result:
        result = invoke(url, *arguments, **{"RAG_TEAM": team, **options})
        assert result.exit_code == exits, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
        return result

    return run


def as_json(result: Result) -> Any:
    return json.loads(result.stdout)


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "leave.md").write_text("# Leave\n\n## Parents\n\nParents get twenty weeks of leave after a birth.\n")
    (folder / "canteen.md").write_text("# Canteen\n\nThe canteen opens at noon and closes at two.\n")
    return folder


@pytest.fixture
def source(rag: Rag, handbook: Path) -> str:
    """A source of a name of its own, not synced yet."""
    name = f"handbook-{handbook.parent.name}"
    rag("source", "add", "files", name, "--root", str(handbook), "--group", "readers")
    return name


# --- teams and keys ---------------------------------------------------------------------------


def test_a_team_is_made_and_listed(rag: Rag) -> None:
    made = as_json(rag("team", "create", "lab", "--json"))
    assert (made["id"], made["name"]) == ("lab", "lab")
    assert "lab" in [team["id"] for team in as_json(rag("team", "list", "--json"))["data"]]
    assert "All staff" in rag("team", "list").stdout
    assert "Choose another" in rag("team", "create", "lab", exits=1).stderr


def test_an_admin_key_that_could_mean_several_teams_must_name_one(rag: Rag) -> None:
    rag("team", "create", "another-team")
    result = rag("source", "list", exits=2, RAG_TEAM="")
    assert "several teams" in result.stderr
    assert "--team" in result.stderr
    rag("source", "list", "--team", "staff", RAG_TEAM="")


def test_a_key_is_shown_once_works_and_can_be_revoked(rag: Rag) -> None:
    made = as_json(rag("key", "create", "reader", "--scope", "query", "--expires-in-days", "2", "--json"))
    assert made["scopes"] == ["query"]
    assert made["expires_at"]
    rag("search", "anything", "--key", made["key"], RAG_TEAM="")

    listed = rag("key", "list").stdout
    assert made["id"] in listed
    assert made["key"] not in listed

    rag("key", "revoke", made["id"])
    refused = rag("search", "anything", "--key", made["key"], exits=2)
    assert "RAG_API_KEY" in refused.stderr


def test_a_key_for_a_person_and_for_people_to_copy(rag: Rag) -> None:
    result = rag("key", "create", "ada", "--user", "ada", "--group", "readers")
    assert re.fullmatch(r"rag_\S+\n", result.stdout)
    assert "not shown again" in result.stderr
    (row,) = [line for line in rag("key", "list").stdout.splitlines() if " ada " in line]
    assert "readers" in row


# --- documents --------------------------------------------------------------------------------


def test_files_are_added_found_and_deleted(rag: Rag, handbook: Path) -> None:
    paths = [str(path) for path in sorted(handbook.iterdir())]
    added = as_json(rag("document", "add", *paths, "--public", "--metadata", "year=2026", "--json"))["data"]
    assert [document["status"] for document in added] == ["ready", "ready"]
    assert {document["external_id"] for document in added} == set(paths)

    found = as_json(rag("search", "canteen noon", "--filter", '{"year": 2026}', "--top-k", "1", "--json"))
    assert found["results"][0]["document_id"] == added[0]["id"]

    rag("document", "delete", added[0]["id"])
    found = as_json(rag("search", "canteen noon", "--json"))
    assert added[0]["id"] not in [result["document_id"] for result in found["results"]]


def test_the_same_file_again_is_the_same_document(rag: Rag, handbook: Path) -> None:
    path = handbook / "leave.md"
    first = as_json(rag("document", "add", str(path), "--public", "--json"))
    again = as_json(rag("document", "add", str(path), "--public", "--json"))
    assert (again["id"], again["version"]) == (first["id"], 1)

    path.write_text("# Leave\n\nNow it is thirty weeks.\n")
    changed = as_json(rag("document", "add", str(path), "--public", "--json"))
    assert (changed["id"], changed["version"], changed["status"]) == (first["id"], 2, "ready")


def test_text_comes_from_stdin(rag: Rag) -> None:
    added = as_json(
        rag("document", "add", "-", "--title", "Parking", "--external-id", "parking", "--json", input="Park behind it.")
    )
    assert (added["title"], added["external_id"], added["status"]) == ("Parking", "parking", "ready")
    assert "no text on stdin" in rag("document", "add", "-", input="", exits=2).stderr


def test_a_new_document_without_readers_is_pointed_out(rag: Rag) -> None:
    assert "--public" in rag("document", "add", "-", "--external-id", "lonely", input="Nobody reads this.").stderr


def test_a_document_that_fails_exits_1_and_show_says_why_and_what_to_do(rag: Rag, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\nnot much of a PDF")
    result = rag("document", "add", str(broken), "--public", exits=1)
    (document_id,) = re.findall(r"rag document show (\S+)", result.stderr)

    shown = rag("document", "show", document_id).stdout
    for part in ("failed in stage", "error", "next step", "rag document add"):
        assert part in shown
    record = as_json(rag("document", "show", document_id, "--json"))
    assert record["error"]["message"] in result.stderr
    assert "failed" in [event["kind"] for event in record["events"]]
    assert document_id in rag("document", "list", "--status", "failed").stdout


def test_what_cannot_be_added_is_refused_with_the_way_to_go(rag: Rag, handbook: Path) -> None:
    assert "rag source add files handbook" in rag("document", "add", str(handbook), exits=2).stderr
    assert "cannot be read" in rag("document", "add", str(handbook / "none.md"), exits=2).stderr
    assert "one document" in rag("document", "add", "a", "b", "--title", "T", exits=2).stderr


def test_adding_without_waiting_gives_what_to_follow(rag: Rag) -> None:
    receipt = as_json(rag("document", "add", "-", "--external-id", "later", "--no-wait", "--json", input="Later on."))
    assert receipt["job_id"]
    assert as_json(rag("job", "watch", receipt["job_id"], "--json"))["state"] == "succeeded"
    assert as_json(rag("document", "show", receipt["id"], "--json"))["status"] == "ready"


def test_an_unknown_document_exits_1_and_gives_the_problem_as_json(rag: Rag) -> None:
    assert as_json(rag("document", "show", "doc_nowhere", "--json", exits=1))["status"] == 404
    assert rag("document", "show", "doc_nowhere", exits=1).stderr.startswith("Error: ")


# --- sources and jobs -------------------------------------------------------------------------


def test_a_source_is_synced_and_its_documents_are_listed(rag: Rag, source: str) -> None:
    job = as_json(rag("source", "sync", source, "--json"))
    assert (job["state"], job["counters"]["new"]) == ("succeeded", 2)

    listed = as_json(rag("document", "list", "--source", source, "--status", "ready", "--json"))
    assert {document["external_id"] for document in listed["data"]} == {"leave.md", "canteen.md"}
    assert source in rag("source", "list").stdout
    assert "2 new" not in rag("source", "sync", source).stdout
    assert "succeeded" in rag("source", "status", source).stdout
    assert as_json(rag("source", "status", source, "--json"))["latest_sync"]["state"] == "succeeded"


def test_a_list_that_goes_on_says_so_and_goes_on_when_asked(rag: Rag, source: str) -> None:
    rag("source", "sync", source)
    assert "There are more" in rag("document", "list", "--source", source, "--limit", "1").stderr
    assert len(as_json(rag("document", "list", "--source", source, "--json"))["data"]) == 2


def test_a_list_is_followed_over_its_pages(rag: Rag, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rag("source", "sync", source)
    monkeypatch.setattr("rag_service.cli.client.PAGE", 1)
    listed = as_json(rag("document", "list", "--source", source, "--json"))
    assert len({document["id"] for document in listed["data"]}) == 2
    assert (listed["has_more"], listed["next_cursor"]) == (False, None)


def test_a_source_shows_its_configuration_and_default_readers(rag: Rag, source: str, handbook: Path) -> None:
    shown = as_json(rag("source", "show", source, "--json"))
    assert shown["config"]["root"] == str(handbook)
    assert shown["acl"]["groups"] == ["readers"]
    assert str(handbook) in rag("source", "show", source).stdout


def test_a_source_takes_further_configuration(rag: Rag, handbook: Path) -> None:
    rag("source", "add", "files", "some", "--root", str(handbook), "--public", "--config", 'include=["leave*"]')
    rag("source", "sync", "some")
    listed = as_json(rag("document", "list", "--source", "some", "--json"))["data"]
    assert [document["external_id"] for document in listed] == ["leave.md"]


def test_a_sync_need_not_be_waited_for_and_can_be_watched(rag: Rag, source: str) -> None:
    job_id = as_json(rag("source", "sync", source, "--no-wait", "--json"))["job_id"]
    assert "succeeded" in rag("job", "watch", job_id).stdout
    assert job_id in rag("job", "list", "--kind", "sync").stdout
    assert as_json(rag("job", "show", job_id, "--json"))["progress"]["done"] == 2
    assert "succeeded" in rag("job", "cancel", job_id).stdout


def test_a_sync_with_a_failing_document_exits_1_and_says_where_to_look(rag: Rag, source: str, handbook: Path) -> None:
    (handbook / "broken.pdf").write_bytes(b"%PDF-1.7\nnot much of a PDF")
    result = rag("source", "sync", source, exits=1)
    assert "rag document list --status failed" in result.stderr
    assert "failed" in rag("source", "status", source).stderr


def test_many_deletions_are_held_until_they_are_confirmed(rag: Rag, source: str, handbook: Path) -> None:
    rag("source", "sync", source)
    (handbook / "leave.md").unlink()
    assert "--confirm-deletions" in rag("source", "sync", source).stderr
    assert "--confirm-deletions" in rag("source", "status", source).stderr

    job = as_json(rag("source", "sync", source, "--confirm-deletions", "--json"))
    assert job["counters"]["deleted"] == 1


def test_a_paused_source_is_not_synced_until_it_is_resumed(rag: Rag, source: str) -> None:
    rag("source", "pause", source)
    assert "paused" in rag("source", "list").stdout
    assert f"rag source resume {source}" in rag("source", "sync", source, exits=2).stderr
    rag("source", "resume", source)
    rag("source", "sync", source)


def test_a_deleted_source_is_gone_with_its_documents(rag: Rag, source: str) -> None:
    rag("source", "sync", source)
    rag("source", "delete", source)
    result = rag("source", "show", source, exits=1)
    assert f"no source {source!r}" in result.stderr


def test_the_documents_of_a_deleted_source_can_be_kept(rag: Rag, source: str) -> None:
    rag("source", "sync", source)
    (first, _) = as_json(rag("document", "list", "--source", source, "--json"))["data"]
    rag("source", "delete", source, "--keep-documents")
    assert as_json(rag("document", "show", first["id"], "--json"))["status"] == "ready"


def test_a_source_can_be_synced_by_the_clock(rag: Rag, handbook: Path) -> None:
    made = as_json(rag("source", "add", "files", "clocked", "--root", str(handbook), "--every", "600", "--json"))
    assert made["schedule_s"] == 600
    assert "every 600 s" in rag("source", "show", "clocked").stdout
    rag("source", "delete", "clocked")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["source", "add", "flies", "x"], "files"),
        (["source", "add", "files", "x"], "root"),
        (["source", "add", "files", "x", "--config", "oops"], "key=value"),
        (["source", "add", "files", "x", "--root", "/", "--config", "include=*.md"], "--config 'include=[\"*.md\"]'"),
        (["search", "x", "--filter", "{"], "JSON object"),
        (["search", "x", "--filter", '{"a": {"$near": 1}}'], "near"),
        (["search", "x", "--mode", "magic"], "mode"),
        (["document", "list", "--status", "odd"], "status"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_makes_no_sense_exits_2_and_names_what_is_wrong(
    rag: Rag, arguments: list[str], told: str
) -> None:
    assert told in rag(*arguments, exits=2).stderr


# --- asking -----------------------------------------------------------------------------------


def test_results_are_cited_for_people(rag: Rag, source: str) -> None:
    rag("source", "sync", source)
    # Other tests put the same text in, cited otherwise: only this source is asked.
    only = json.dumps({"source": as_json(rag("source", "show", source, "--json"))["id"]})
    asked = ("how many weeks of leave for parents", "--as-group", "readers", "--top-k", "1", "--filter", only)
    shown = rag("search", *asked).stdout
    for part in ("1. ", "Leave", "Parents", "leave.md", "twenty weeks", "1 result in"):
        assert part in shown


def test_each_person_sees_what_they_may_read(rag: Rag) -> None:
    secret = as_json(
        rag("document", "add", "-", "--external-id", "bands", "--user", "ada", "--json", input="Salary bands of 2026.")
    )["id"]

    def sees(*identity: str, **options: str) -> bool:
        results = as_json(rag("search", "salary bands", "--json", *identity, **options))["results"]
        return secret in [result["document_id"] for result in results]

    assert sees("--as-user", "ada")
    assert not sees("--as-user", "bob")
    assert not sees("--as-group", "ada")
    assert sees()  # the admin key manages the team

    key = as_json(rag("key", "create", "plain", "--json"))["key"]
    assert not sees("--key", key, RAG_TEAM="")
    assert "impersonate" in rag("search", "x", "--as-user", "ada", "--key", key, exits=1, RAG_TEAM="").stderr


# --- why, and asking again --------------------------------------------------------------------


def test_why_a_document_is_missing_is_said_in_words_and_as_json(rag: Rag) -> None:
    add = ("document", "add", "-", "--external-id", "bonus", "--metadata", "year=2023", "--user", "ada", "--json")
    bonus = as_json(rag(*add, input="Bonus payments of 2023."))["id"]
    about = ("why-not", "bonus payments", "--document", bonus)
    assert "returned" in rag(*about).stdout
    shown = rag(*about, "--filter", '{"year": {"$gte": 2024}}').stdout
    for part in ("filtered_out", "metadata.year", "2024", "2023"):
        assert part in shown
    denied = as_json(rag("why-not", "bonus", "--external-id", "bonus", "--as-user", "bob", "--json"))
    assert denied["verdict"] == "not_readable"
    assert "rank" in rag("why-not", "unlike", "--document", bonus, "--mode", "dense", "--top-k", "1").stdout
    assert "no such document" in rag("why-not", "bonus", "--document", "doc_nothing", exits=1).stderr
    assert "--external-id" in rag("why-not", "bonus", exits=2).stderr


def test_a_query_is_shown_and_asked_again(rag: Rag) -> None:
    add = ("document", "add", "-", "--external-id", "fund", "--public", "--json")
    fund = as_json(rag(*add, input="The pension fund grows."))["id"]
    asked = as_json(rag("search", "pension fund", "--json"))["query_id"]
    shown = rag("query", "show", asked).stdout
    for part in (asked, fund, "(not kept)", "dense, lexical"):
        assert part in shown
    assert as_json(rag("query", "show", asked, "--json"))["id"] == asked
    assert "unchanged" in rag("query", "replay", asked, "--query", "pension fund").stdout
    rag("document", "delete", fund)
    again = rag("query", "replay", asked, "--query", "pension fund").stdout
    assert "vanished" in again
    assert fund in again
    assert "as query" in rag("query", "replay", asked, exits=2).stderr
