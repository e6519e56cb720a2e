"""The real model: found without a network, as good as float32, the same in any company, and loaded only when needed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import openvino
import pytest
from huggingface_hub import constants

from rag_service.embedding.compiled import compiled_folder
from rag_service.embedding.local import LocalEmbedder
from rag_service.embedding.model_folder import ModelFolder, find_model
from rag_service.embedding.processors import available_cores, usual_formats
from rag_service.errors import ConfigError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY = [
    "the",
    "quick",
    "retrieval",
    "of",
    "many",
    "documents;",
    "ranks",
    "passages",
    "by",
    "meaning,",
    "somewhat",
]


def passages(count: int) -> list[str]:
    chance = random.Random(7)
    return [" ".join(chance.choices(VOCABULARY, k=chance.randint(1, 220))) for _ in range(count)]


@pytest.fixture(scope="module")
def chosen() -> LocalEmbedder:
    return LocalEmbedder("all-MiniLM-L6-v2")


@pytest.fixture(scope="module")
def exact() -> LocalEmbedder:
    return LocalEmbedder("sentence-transformers/all-MiniLM-L6-v2", dtype="float32")


def test_the_packaged_weights_are_the_published_ones(chosen: LocalEmbedder) -> None:
    assert chosen.identity.revision == MINILM_SHA256
    assert chosen.identity.dimensions == 384
    assert chosen.window == 254


def test_our_forward_pass_gives_what_the_library_gives(exact: LocalEmbedder) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [*passages(12), "", "one long text " * 400]
    library = SentenceTransformer(str(find_model("all-MiniLM-L6-v2")), device="cpu")
    expected = library.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(exact.embed(texts, "document"), expected, atol=2e-5)


def test_the_chosen_number_format_stays_close_to_float32(chosen: LocalEmbedder, exact: LocalEmbedder) -> None:
    texts = passages(40)
    cosines = (chosen.embed(texts, "document") * exact.embed(texts, "document")).sum(axis=1)
    assert cosines.min() > 0.999


def test_a_text_has_the_same_vector_alone_and_in_any_batch(chosen: LocalEmbedder) -> None:
    texts = passages(30)
    together = chosen.embed(texts, "document")
    shuffled = chosen.embed(texts[::-1], "document")[::-1]
    alone = np.vstack([chosen.embed([text], "query") for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.9998
    assert (together * shuffled).sum(axis=1).min() > 0.9998


def test_tokens_beyond_the_window_are_not_read(chosen: LocalEmbedder) -> None:
    words = ["window"] * chosen.window
    full, beyond, within = chosen.embed(
        [" ".join(words), " ".join([*words, "banana"]), " ".join([*words[1:], "banana"])], "document"
    )
    assert float(full @ beyond) > 0.9999
    assert float(full @ within) < 0.9999


def test_token_spans_are_those_of_the_model_and_keep_their_places() -> None:
    text = "Tokenization \ud800 ends; ünïcode 東京"
    spans = LocalEmbedder("all-MiniLM-L6-v2").token_spans(text)
    assert [text[start:end] for start, end in spans if text[start:end] != "\ud800"] == [
        *("Token", "ization", "ends", ";", "ünïcode", "東", "京")
    ]


def test_spans_window_and_identity_do_not_load_torch() -> None:
    program = (
        "import sys; from rag_service.embedding.local import LocalEmbedder; e = LocalEmbedder('all-MiniLM-L6-v2');"
        "assert e.token_spans('hello there') and e.window and e.identity; print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert run.stdout.strip() == b"False"


def test_the_constructor_does_no_work_and_an_unknown_model_is_refused_on_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    embedder = LocalEmbedder("nobody/no-such-model")
    with pytest.raises(ConfigError, match="RAG_EMBEDDING_MODEL") as refused:
        embedder.embed(["text"], "query")
    assert refused.value.code == "model_unavailable"


def test_a_hub_that_does_not_answer_is_given_up_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(ConfigError, match="the hub does not give it"):
        find_model("nobody/no-such-model")
    assert time.monotonic() - started < 8


def test_a_name_that_cannot_be_a_model_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a folder here nor a name on the hub"):
        find_model("no such/folder/at all")


def test_a_folder_is_taken_before_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model("all-MiniLM-L6-v2"), folder)
    assert find_model(str(folder)) == folder
    assert LocalEmbedder(str(folder)).identity.revision == MINILM_SHA256


def test_a_folder_without_tokenizer_or_weights_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        LocalEmbedder(str(tmp_path)).token_spans("text")
    with pytest.raises(ConfigError, match="weights"):
        _ = LocalEmbedder(str(tmp_path)).identity


def test_a_folder_that_is_no_model_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = find_model("all-MiniLM-L6-v2")
    shutil.copy(folder / "tokenizer.json", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="RAG_EMBEDDING_MODEL"):
        LocalEmbedder(str(tmp_path)).embed(["text"], "query")


def test_a_model_that_wants_prompts_gets_them_and_they_count_against_the_window(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(find_model("all-MiniLM-L6-v2"), folder)
    prompts = {"prompts": {"query": "query: ", "passage": "the passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    prompted, plain = LocalEmbedder(str(folder), "float32"), LocalEmbedder("all-MiniLM-L6-v2", "float32")
    assert prompted.window == 254 - 3
    for kind, prompt in (("query", "query: "), ("document", "the passage: ")):
        mine = prompted.embed(["cats"], kind)  # type: ignore[arg-type]  # a loop loses the literal type
        np.testing.assert_allclose(mine, plain.embed([f"{prompt}cats"], "document"), atol=1e-5)


def test_several_weight_files_are_all_part_of_the_revision(tmp_path: Path) -> None:
    (tmp_path / "model-1.safetensors").write_bytes(b"one")
    (tmp_path / "model-2.safetensors").write_bytes(b"two")
    before = ModelFolder(tmp_path).digest
    (tmp_path / "model-2.safetensors").write_bytes(b"TWO")
    assert ModelFolder(tmp_path).digest != before


def test_dimensions_are_unknown_when_a_layer_after_pooling_decides_them(tmp_path: Path) -> None:
    layers = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Dense")]
    (tmp_path / "config.json").write_text('{"hidden_size": 12}')
    (tmp_path / "modules.json").write_text(json.dumps(layers[:2]))
    assert ModelFolder(tmp_path).dimensions == 12
    (tmp_path / "modules.json").write_text(json.dumps(layers))
    assert ModelFolder(tmp_path).dimensions is None


def test_a_query_overtakes_a_large_batch(chosen: LocalEmbedder) -> None:
    chosen.warm_up()
    finished: dict[str, float] = {}

    def bulk() -> None:
        chosen.embed(["a long passage about many things " * 40] * 60, "document")
        finished["bulk"] = time.monotonic()

    thread = threading.Thread(target=bulk)
    thread.start()
    time.sleep(0.05)
    chosen.embed(["a short question"], "query")
    finished["query"] = time.monotonic()
    thread.join()
    assert finished["query"] < finished["bulk"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def compiled(cache: Path) -> LocalEmbedder:
    return LocalEmbedder("all-MiniLM-L6-v2", runtime="openvino", cache=cache)


def test_the_compiled_model_gives_the_vectors_of_the_model(compiled: LocalEmbedder, exact: LocalEmbedder) -> None:
    texts = [*passages(40), "", "one long text " * 400]
    got = compiled.embed(texts, "document")
    assert (got * exact.embed(texts, "document")).sum(axis=1).min() > 0.999
    alone = np.vstack([compiled.embed([text], "query") for text in texts])
    assert (got * alone).sum(axis=1).min() > 0.9998


def test_vectors_of_texts_that_the_model_cannot_read_are_its_own_in_bytes_too(
    cache: Path, exact: LocalEmbedder
) -> None:
    texts = [
        "تأسست أول بورصة في وارسو عام 1817 واستمرت في التداول حتى اندلاع الحرب العالمية الثانية.",
        "كم عدد الأخطاء التي أجبر الخصم على ارتكابها؟",
        "《火影忍者》是一部于2012年发行的格斗游戏，由一家日本公司制作，支持两名玩家对战。",
        "Ⴀ Ⴁ Ⴂ " * 40,
        "Der Doktor reist selten allein und nimmt häufig einen oder mehrere Begleiter mit.",
    ]
    in_bytes = LocalEmbedder("all-MiniLM-L6-v2", "int8", "openvino", cache=cache)
    assert in_bytes.computation == "openvino int8"
    assert (in_bytes.embed(texts, "document") * exact.embed(texts, "document")).sum(axis=1).min() > 0.999


@pytest.mark.filterwarnings("ignore")  # of the tracer, which has its own process otherwise
def test_a_model_whose_every_matrix_is_rounded_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rag_service.embedding import conversion, quantisation

    monkeypatch.setattr(quantisation, "_MOST_LOST", 1.0)
    with pytest.raises(SystemExit, match=r"cosine 0\.99"):
        conversion.convert(find_model("all-MiniLM-L6-v2"), tmp_path / "model.xml", "int8")


def test_what_cannot_be_compiled_in_bytes_is_computed_in_the_next_format(cache: Path, compiled: LocalEmbedder) -> None:
    without = cache / "none in bytes"
    shutil.copytree(cache, without, ignore=shutil.ignore_patterns("*-int8-*", without.name))
    refused = without / f"{MINILM_SHA256[:16]}-int8-openvino-{openvino.__version__.split('-')[0]}"
    refused.mkdir()
    (refused / "refused.txt").write_text("cosine 0.99")
    embedder = LocalEmbedder("all-MiniLM-L6-v2", "int8", cache=without)
    assert embedder.computation == f"openvino {usual_formats()[-1]}"
    assert LocalEmbedder("all-MiniLM-L6-v2", "int8", "torch").computation == f"torch {usual_formats()[-1]}"


def test_slices_that_are_computed_beside_each_other_do_not_touch(compiled: LocalEmbedder) -> None:
    texts = [text * (1 + place % 5) for place, text in enumerate(passages(40))]
    alone = np.vstack([compiled.embed([text], "document") for text in texts])
    with ThreadPoolExecutor(8) as callers:
        for vectors in callers.map(lambda _: compiled.embed(texts, "document"), range(8)):
            assert (vectors * alone).sum(axis=1).min() > 0.9998


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
@pytest.mark.skipif(available_cores() == 1, reason="on one core, questions overtake in the queue")
def test_where_both_want_a_processor_questions_are_computed_before_documents(compiled: LocalEmbedder) -> None:
    def niceness_of_what_computes(work: Callable[[], object]) -> set[int]:
        before = processor_time()
        work()
        spent = {thread: time - before.get(thread, 0) for thread, time in processor_time().items()}
        return {os.getpriority(os.PRIO_PROCESS, thread) for thread in spent if spent[thread] > sum(spent.values()) / 4}

    mine = os.getpriority(os.PRIO_PROCESS, 0)
    texts = [f"{text} " * 5 for text in passages(40)]
    compiled.warm_up()
    assert niceness_of_what_computes(lambda: compiled.embed(texts, "document")) == {mine + 10}
    assert niceness_of_what_computes(lambda: [compiled.embed([text], "query") for text in texts]) == {mine}


@pytest.mark.skipif(sys.platform != "linux", reason="threads are tied to cores on Linux only")
@pytest.mark.skipif(available_cores() == 1, reason="on one core, all are tied to it")
def test_whatever_computes_may_do_so_on_any_core(compiled: LocalEmbedder) -> None:
    seen: set[frozenset[int]] = set()

    def look_at_threads(done: Future[object]) -> None:
        while not done.done():
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(ProcessLookupError):
                    seen.add(frozenset(os.sched_getaffinity(int(task.name))))

    compiled.warm_up()  # what loads a model may tie itself
    with ThreadPoolExecutor(2) as callers:
        look_at_threads(callers.submit(compiled.embed, passages(40), "document"))
        look_at_threads(callers.submit(lambda: [compiled.embed([text], "query") for text in passages(40)]))
    assert seen == {frozenset(os.sched_getaffinity(0))}


def processor_time() -> dict[int, int]:
    """Ticks that each thread of this process has computed for, see proc(5)."""
    tasks = [task for task in Path("/proc/self/task").iterdir() if (task / "stat").exists()]
    return {int(task.name): int((task / "stat").read_text().rpartition(")")[2].split()[11]) for task in tasks}


def test_a_compiled_model_is_made_once_and_computes_without_torch(compiled: LocalEmbedder, cache: Path) -> None:
    expected = compiled.embed(["hello there"], "query")
    (graph,) = cache.glob("*/model.xml")
    made = graph.stat().st_mtime_ns
    program = (
        "import sys; from pathlib import Path; from rag_service.embedding.local import LocalEmbedder;"
        "e = LocalEmbedder('all-MiniLM-L6-v2', cache=Path(sys.argv[1]));"
        "print('torch' in sys.modules, *e.embed(['hello there'], 'query')[0]); assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", program, str(cache)], capture_output=True, check=True, text=True)
    loaded, *vector = run.stdout.split()
    assert loaded == "False"
    assert float(expected[0] @ np.array(vector, dtype=np.float32)) > 0.9999
    assert graph.stat().st_mtime_ns == made


def test_identity_does_not_depend_on_what_computes(compiled: LocalEmbedder, exact: LocalEmbedder) -> None:
    assert compiled.identity.revision == exact.identity.revision


@pytest.fixture
def unloadable(tmp_path: Path) -> Path:
    """A model with a layer that nobody knows."""
    folder = tmp_path / "model"
    shutil.copytree(find_model("all-MiniLM-L6-v2"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "no such function"}))
    return folder


def test_a_model_that_cannot_be_compiled_leaves_the_reason_and_falls_back(unloadable: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert compiled_folder(unloadable, "0" * 64, "float32", cache) is None
    (reason,) = cache.glob("*/refused.txt")
    assert "no such function" in reason.read_text()
    with pytest.raises(ConfigError, match="RAG_EMBEDDING_RUNTIME"):
        LocalEmbedder(str(unloadable), "float32", "openvino", cache=cache).embed(["text"], "query")


@pytest.mark.filterwarnings("ignore")  # of the tracer, which has its own process otherwise
@pytest.mark.parametrize("cosine", [0.99, float("nan")])
def test_a_graph_with_other_vectors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cosine: float) -> None:
    from rag_service.embedding import conversion

    monkeypatch.setattr(conversion, "_cosine", lambda *_: cosine)
    with pytest.raises(SystemExit, match=f"cosine {cosine}"):
        conversion.convert(find_model("all-MiniLM-L6-v2"), tmp_path / "model.xml", "float32")


def test_without_a_place_for_compiled_models_torch_computes(exact: LocalEmbedder) -> None:
    automatic = LocalEmbedder("all-MiniLM-L6-v2", "float32", "auto")
    np.testing.assert_allclose(automatic.embed(["same"], "query"), exact.embed(["same"], "query"), atol=1e-6)
    with pytest.raises(ConfigError, match="folder"):
        LocalEmbedder("all-MiniLM-L6-v2", runtime="openvino").embed(["text"], "query")


def test_a_graph_that_came_with_an_image_is_used_where_nothing_can_be_written(tmp_path: Path) -> None:
    version = openvino.__version__.split("-")[0]
    baked = tmp_path / f"{'0' * 16}-float32-openvino-{version}"
    baked.mkdir()
    (baked / "model.xml").touch()
    assert compiled_folder(tmp_path / "no model", "0" * 64, "float32", tmp_path) == baked
    assert list(tmp_path.iterdir()) == [baked]  # no lock either


def test_where_nothing_can_be_written_what_is_not_there_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    assert compiled_folder(tmp_path / "no model", "0" * 64, "int8", tmp_path / "a file") is None
