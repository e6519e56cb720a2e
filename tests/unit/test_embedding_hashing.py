"""The test double gives the same vector for the same words, everywhere."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from rag_service.embedding.hashing import HashingEmbedder

PROGRAM = """
from rag_service.embedding.hashing import HashingEmbedder
print(HashingEmbedder(8).embed(["one two three"], "query").round(6).tolist())
"""


def test_vectors_do_not_depend_on_the_process() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", PROGRAM], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True)
        for seed in ("1", "2")
    ]
    here = str(HashingEmbedder(8).embed(["one two three"], "query").round(6).tolist())
    assert [run.stdout.decode().strip() for run in runs] == [here, here]


def test_order_case_and_punctuation_of_words_do_not_matter_but_their_number_does() -> None:
    one, same, other = HashingEmbedder().embed(["Red, red wine", "wine RED red!", "red wine"], "document")
    np.testing.assert_array_equal(one, same)
    assert float(one @ other) < 0.999


def test_a_text_without_words_is_the_first_unit_vector() -> None:
    expected = np.eye(1, 5, dtype=np.float32)[0]
    for vector in HashingEmbedder(5).embed(["", " \n", "?!"], "document"):
        np.testing.assert_array_equal(vector, expected)
