"""The options of a question over HTTP: each does what it says, is off unless asked for, and says what it did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag_service.errors import RetryableError
from tests.conftest import Service, Started, Team, settings_for

SECTIONS = """# Handbook

## Leave

Annual leave is thirty days long. {filler}

### Sick leave

Sick leave is paid for six weeks. {filler}

## Lunch

Lunch is at noon. {filler}
"""


@pytest.fixture(scope="module")
def library(service: Service) -> Team:
    team = service.new_team()
    filler = "More words make a passage long enough to stand alone. " * 30
    team.put(SECTIONS.format(filler=filler), external_id="handbook", title="Handbook")
    team.put("Annual leave is long.", external_id="short", metadata={"published": "2001-01-01"})
    team.put("Annual leave is long!", external_id="copy", metadata={"published": "2026-01-01"})
    team.put("Leave the annual party early.", external_id="party")
    team.drain()
    return team


def names(hits: Sequence[dict[str, Any]]) -> list[str]:
    return [hit["external_id"] for hit in hits]


def ask(team: Team, query: str, **more: Any) -> dict[str, Any]:
    answer = team.manager.post("/v1/retrieve", json={"query": query, "explain": True, **more})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


# --- words --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_a_phrase_must_occur_and_an_excluded_word_must_not_in_every_mode(library: Team, mode: str) -> None:
    assert "party" in names(library.retrieve("annual leave", mode=mode, top_k=100))
    assert set(names(library.retrieve('"annual leave"', mode=mode, top_k=100))) == {"handbook", "short", "copy"}
    assert set(names(library.retrieve("annual leave -party", mode=mode, top_k=100))) == {"handbook", "short", "copy"}
    assert names(library.retrieve('"annual party"', mode=mode)) == ["party"]
    assert names(library.retrieve('"no such words"', mode=mode)) == []


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_words_are_compared_however_they_are_written_in_every_mode(team: Team, mode: str) -> None:
    team.put("The _annual_ leave is a _draft_.", external_id="markdown")
    team.put("Die Ar\u00adbeits\u00adzeit gilt.", external_id="html")
    team.put("هذا كِتاب", external_id="pointed")
    team.put("Un cœur simple", external_id="ligature")
    team.drain()
    for quoted, found in [
        ("annual leave", "markdown"),
        ("Arbeitszeit gilt", "html"),
        ("كتاب", "pointed"),
        ("coeur simple", "ligature"),
    ]:
        assert names(team.retrieve(f'"{quoted}"', mode=mode)) == [found]
    assert names(team.retrieve("leave gilt -draft", mode=mode, top_k=1)) == ["html"]


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_the_one_passage_with_the_phrase_is_found_however_many_have_its_words(team: Team, mode: str) -> None:
    many = [{"text": f"blue whale, whale blue {n}", "acl": {"public": True}} for n in range(300)]
    assert team.manager.post("/v1/documents:batch", json={"documents": many}).status_code == 200
    team.put(
        "Some other words come first, a great many of them, and then the whale was blue. Whale was.", external_id="it"
    )
    team.drain()
    assert names(team.retrieve('blue whale "whale was blue"', mode=mode, top_k=3)) == ["it"]


def test_a_passage_that_is_not_admitted_takes_no_place_of_its_documents(team: Team) -> None:
    filler = "Parking is free for all who come early. " * 40
    text = f"# Leave\n\nLeave leave leave leave. {filler}\n\n# Rest\n\nThe annual leave is long. {filler}"
    team.put(text, external_id="handbook")
    team.drain()
    assert len(team.retrieve("leave", top_k=100)) > 1, "else this test shows nothing"
    (hit,) = team.retrieve('leave "annual leave"', max_chunks_per_document=1)
    assert "annual leave" in hit["text"]


def test_operators_can_be_switched_off(library: Team) -> None:
    assert "party" in names(library.retrieve('"annual leave"', operators="off", top_k=100))


def test_the_plan_tells_demands_weights_and_why(library: Team) -> None:
    plan = ask(library, 'what is "annual leave" -party')["plan"]
    assert (plan["phrases"], plan["excluded"]) == (["annual leave"], ["party"])
    assert plan["fusion"]["weights"] == {"dense": 0.3, "lexical": 0.7}
    assert "names something" in plan["fusion"]["because"]
    assert ask(library, "the of and")["plan"]["fusion"]["weights"] == {"dense": 1.0, "lexical": 0.0}


# --- weights of a collection --------------------------------------------------------------


def test_a_collection_keeps_its_fusion_and_a_question_overrides_it(team: Team) -> None:
    fusion = {"method": "weighted", "weights": {"dense": 0.2, "lexical": 0.8}, "k": 60}
    made = team.manager.post("/v1/collections", json={"name": "codes", "retrieval": {"fusion": fusion}})
    assert made.json()["retrieval"] == {"fusion": fusion}
    assert team.manager.get("/v1/collections/codes").json()["retrieval"] == {"fusion": fusion}
    asked = ask(team, "words", collections=["codes"])["plan"]["fusion"]
    assert (asked["weights"], asked["because"]) == ({"dense": 0.2, "lexical": 0.8}, "given")
    rrf = ask(team, "words", collections=["codes"], fusion={"method": "rrf"})["plan"]["fusion"]
    assert (rrf["method"], rrf["weights"]) == ("rrf", {"dense": 1.0, "lexical": 1.0})
    assert ask(team, "words", collections=["codes", "default"])["plan"]["fusion"]["weights"] == {
        "dense": 0.7,
        "lexical": 0.3,
    }


def test_a_collections_fusion_is_changed_and_taken_back(team: Team) -> None:
    address = "/v1/collections/default"
    assert team.manager.get(address).json()["retrieval"] == {"fusion": None}
    changed = team.manager.patch(address, json={"retrieval": {"fusion": {"method": "rrf", "k": 10}}})
    assert changed.json()["retrieval"]["fusion"]["k"] == 10
    assert team.manager.patch(address, json={"description": "x"}).json()["retrieval"]["fusion"]["method"] == "rrf"
    assert ask(team, "words")["plan"]["fusion"]["k"] == 10
    assert team.manager.patch(address, json={"retrieval": {}}).json()["retrieval"] == {"fusion": None}
    zero = {"fusion": {"weights": {"dense": 0, "lexical": 0}}}
    assert team.manager.patch(address, json={"retrieval": zero}).status_code == 422


def test_what_scores_more_than_min_score_is_found_beneath_passages_that_one_leg_alone_puts_first(team: Team) -> None:
    def about(subject: str, place: int, share: int) -> str:
        return " ".join([f"{subject} {' '.join(f'word{(7 * place + 11 * n) % 300}' for n in range(3))}"] * share)

    manual = "\n\n".join(f"# Part {n}\n\n{about('pump maintenance interval', n, 30)}" for n in range(70))
    team.put(manual, external_id="manual", media_type="text/markdown")
    for n in range(8):
        team.put(about("pump maintenance interval", 100 + n, 8) + " other words" * 20, external_id=f"note{n}")
    for n in range(3):  # these have one word of the question, and only the lexical leg draws them
        team.put("yearly " + " ".join(f"thing{n} item{m}" for m in range(60)), external_id=f"rare{n}")
    team.drain()
    weights = {"method": "weighted", "weights": {"dense": 0.8, "lexical": 0.2}}
    asked: dict[str, Any] = {"max_chunks_per_document": 1, "top_k": 12, "fusion": weights}
    scores = {hit["external_id"]: hit["score"] for hit in team.retrieve("yearly pump maintenance interval", **asked)}
    least = min(score for name, score in scores.items() if name.startswith("note"))
    assert min(scores.values()) < least
    passing = [name for name, score in scores.items() if score >= least]
    assert names(team.retrieve("yearly pump maintenance interval", **asked, min_score=least)) == passing


# --- what is around and what repeats ------------------------------------------------------


def test_the_context_is_exactly_that_part_of_the_document(library: Team) -> None:
    for expand in ({"before": 1}, {"after": 1}, {"before": 2, "after": 2}, {"section": True}):
        hit = library.retrieve("Sick leave is paid for six weeks", expand=expand, filter={"title": "Handbook"})[0]
        text = library.manager.get(f"/v1/documents/{hit['document_id']}/text").json()["text"]
        context, position = hit["context"], hit["position"]
        assert text[context["start"] : context["end"]] == context["text"]
        assert context["start"] <= position["start"]
        assert context["end"] >= position["end"]
        assert hit["text"] in context["text"]
        assert len(context["text"]) > len(hit["text"])


SECTIONS_OF_MANY = "# Handbook\n\n" + "\n\n".join(
    f"## {name}\n\n" + " ".join(f"{name} sentence number {n} says something." for n in range(120))
    for name in ("Leave", "Lunch", "Parking")
)


def test_every_passage_of_a_section_has_the_whole_section_as_its_context(team: Team) -> None:
    team.put(SECTIONS_OF_MANY, external_id="book", media_type="text/markdown")
    team.drain()
    hits = team.retrieve("sentence says something", expand={"section": True}, top_k=100)
    assert len(hits) > 6
    for hit in hits:
        name = hit["text"].split("sentence")[0].split()[-1]
        start = SECTIONS_OF_MANY.index(f"## {name}")
        end = start + SECTIONS_OF_MANY[start:].find("\n\n## ") if name != "Parking" else len(SECTIONS_OF_MANY)
        # The first passage opens with the title, and its context holds it.
        assert (hit["context"]["start"], hit["context"]["end"]) == (min(start, hit["position"]["start"]), end)
    assert "context" not in team.retrieve("sentence")[0]


def test_a_long_section_is_shown_twenty_passages_to_either_side(team: Team) -> None:
    long = " ".join(f"Sentence number {n} says something." for n in range(2_000))
    team.put(f"# One\n\n{long}\n\n# Two\n\nEnd.", external_id="long", media_type="text/markdown")
    team.drain()
    hits = team.retrieve("sentence says something", expand={"section": True}, top_k=100)
    starts = sorted(hit["position"]["start"] for hit in hits)
    assert len(starts) > 45
    middle = next(hit for hit in hits if hit["position"]["start"] == starts[22])
    assert middle["context"]["start"] == starts[2]
    assert len(middle["context"]["text"]) < len(long)


def test_near_duplicates_are_left_out_on_request(library: Team) -> None:
    assert {"short", "copy"} <= set(names(library.retrieve("annual leave is long")))
    assert len({"short", "copy"} & set(names(library.retrieve("annual leave is long", collapse_duplicates=True)))) == 1
    assert len({"short", "copy"} & set(names(library.retrieve("annual leave is long", collapse_duplicates=0.9)))) == 1


def test_copies_take_no_places_of_what_is_found_beneath_them(team: Team) -> None:
    many = [{"text": f"Parking costs five euros a month. {'!' * n}", "acl": {"public": True}} for n in range(80)]
    assert team.manager.post("/v1/documents:batch", json={"documents": many}).status_code == 200
    for n in range(6):
        team.put(f"Parking for {n + 2} bicycles has a roof and, number {n}, a gate.", external_id=f"other{n}")
    team.drain()
    hits = team.retrieve("parking costs five euros a month", collapse_duplicates=True, top_k=7)
    assert sorted(name for name in names(hits) if name.startswith("other")) == [f"other{n}" for n in range(6)]


def test_recency_and_diversity_reorder_and_say_so(library: Team) -> None:
    recent = ask(library, "annual leave is long", recency={"field": "published", "half_life_days": 365})["results"]
    assert names(recent).index("copy") < names(recent).index("short")
    assert {hit["external_id"]: hit["explain"]["moves"] for hit in recent}["short"]["freshness"] < 0.01
    for hit in recent:
        assert hit["score"] == pytest.approx(hit["scores"]["fused"] + hit["explain"]["moves"]["boost"])
    diverse = ask(library, "annual leave is long", diversity=0.9, top_k=2)["results"]
    assert {"short", "copy"} != set(names(diverse))
    assert diverse[0]["explain"]["moves"]["likeness"] == 0


@pytest.mark.parametrize("feedback", [True, {"passages": 2, "terms": 5, "weight": 0.5}])
def test_feedback_searches_again_and_says_so(library: Team, feedback: Any) -> None:
    answer = ask(library, "annual leave", feedback=feedback)
    assert "feedback" in answer["plan"]["stages_ms"]
    assert answer["plan"]["options"]["feedback"]["passages"] in (2, 5)
    assert set(names(answer["results"])) >= {"short", "copy"}


def test_nothing_is_on_unless_asked_for(library: Team) -> None:
    answer = ask(library, "annual leave")
    assert answer["plan"]["options"] == {"operators": "auto"}
    assert answer["plan"]["stages_ms"].keys() == {"embed", "search", "confirm", "explain"}
    assert all(hit["explain"]["moves"] == {} for hit in answer["results"])


@pytest.mark.parametrize(
    "option",
    [
        {"expand": {}},
        {"expand": {"before": 21}},
        {"diversity": 0},
        {"collapse_duplicates": 2.0},
        {"recency": {"field": "a b"}},
        {"recency": {"field": "published", "half_life_days": 0}},
        {"feedback": {"passages": 0}},
        {"rerank": {"depth": 0}},
        {"operators": "maybe"},
    ],
    ids=str,
)
def test_options_out_of_bounds_are_refused(library: Team, option: dict[str, Any]) -> None:
    assert library.manager.post("/v1/retrieve", json={"query": "x", **option}).status_code == 422


def test_what_is_wrong_with_an_option_is_said_once_and_of_the_field_that_was_sent(library: Team) -> None:
    wrong = {"rerank": {"depth": 500}, "feedback": {"passages": 0}, "collapse_duplicates": 2}
    told = library.manager.post("/v1/retrieve", json={"query": "x", **wrong}).json()["errors"]
    assert [error["field"] for error in told] == ["feedback.passages", "collapse_duplicates", "rerank.depth"]


# --- reranking ----------------------------------------------------------------------------


class ByLength:
    """The longest passage first; fails when told to."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.broken = False

    def rerank(self, query: str, passages: Sequence[str]) -> list[float] | None:
        if self.broken:
            raise RetryableError("The rerank API does not answer.")
        self.read = list(passages)
        return [float(len(passage)) for passage in passages]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Team, ByLength]]:
    """A service of its own whose retriever has a reranker."""
    with Started(settings_for(tmp_path)) as started:
        team, reranker = started.new_team(), ByLength()
        for n in range(8):
            team.put("leave " + "x" * n, external_id=f"d{n}")
        team.drain()
        started.runtime.retriever._reranker = reranker
        yield team, reranker


def test_a_reranker_orders_the_best_and_says_how_far_each_moved(shelf: tuple[Team, ByLength]) -> None:
    team, _ = shelf
    hits = ask(team, "leave", top_k=3)["results"]
    assert names(hits) == ["d7", "d6", "d5"]
    assert [hit["score"] for hit in hits] == [13.0, 12.0, 11.0]
    before = names(team.retrieve("leave", rerank=False, top_k=8))
    assert [hit["explain"]["moves"]["rerank_delta"] for hit in hits] == [
        before.index(name) - now for now, name in enumerate(names(hits))
    ]


def test_a_question_chooses_the_depth_or_none(shelf: tuple[Team, ByLength]) -> None:
    team, reranker = shelf
    assert len(team.retrieve("leave", rerank={"depth": 4}, top_k=2)) == 2
    assert len(reranker.read) == 4
    reranker.read = []
    assert team.retrieve("leave", rerank=False)[0]["score"] <= 1
    assert reranker.read == []


def test_a_reranker_that_fails_degrades_the_answer_openly(shelf: tuple[Team, ByLength]) -> None:
    team, reranker = shelf
    plain = names(team.retrieve("leave", rerank=False))
    reranker.broken = True
    answer = ask(team, "leave")
    assert answer["degraded"] == ["reranking unavailable: The rerank API does not answer."]
    assert names(answer["results"]) == plain


def test_a_reranker_reads_only_what_its_asker_may_read(shelf: tuple[Team, ByLength]) -> None:
    team, reranker = shelf
    team.put("leave this secret alone", external_id="secret", acl={"users": ["ann"]})
    team.drain()
    team.retrieve("leave", team.client("query", user="bob"))
    assert reranker.read
    assert not any("secret" in passage for passage in reranker.read)


def test_asking_for_a_reranker_that_is_not_there_is_said_so(library: Team) -> None:
    answer = ask(library, "annual leave", rerank=True)
    assert answer["degraded"] == ["reranking unavailable: no reranker is set up. Set RAG_RERANKER."]
    assert answer["results"]
