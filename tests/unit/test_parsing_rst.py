"""reStructuredText to Markdown: the parts that carry structure, and no word lost."""

from __future__ import annotations

import pytest

from rag_service.parsing.rst import Rst


def written(source: str) -> str:
    return Rst().parse(source.encode(), "a.rst").text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("=====\nTitle\n=====\n\nOne\n===\n\nTwo\n---\n\nThree\n=====\n", "# Title\n\n## One\n\n### Two\n\n## Three"),
        ("Title\n=====\ntext\n", "# Title\n\ntext"),
        ("before\n\n----\n\nafter\n", "before\n\nafter"),
        ("See ``x = 1`` and *this*.\n", "See `x = 1` and *this*."),
        (":pep:`8`, :func:`~os.path.join`, :ref:`the docs <label>`\n", "8, join, the docs"),
        ("`Python <https://python.org>`__ and `PEP 8`_\n", "Python and PEP 8"),
        ("* a\n* b\n", "- a\n- b"),
        ("Like so::\n\n    x = 1\n\n    y = 2\n\nDone.\n", "Like so:\n\n```\nx = 1\n\ny = 2\n```\n\nDone."),
        ("::\n\n   code\n", "```\ncode\n```"),
        (".. code-block:: python\n   :linenos:\n\n   x = 1\n", "```python\nx = 1\n```"),
        (".. note:: Take care.\n   Really.\n", "Note: Take care.\n\nReally."),
        (".. a comment\n   of two lines\n\ntext\n", "text"),
        (
            "..\n   a comment\n\n...and so on, as ../conf says.\n\n../conf is ours.\n",
            "...and so on, as ../conf says.\n\n../conf is ours.",
        ),
        (".. _target: http://x\n\ntext\n", "text"),
        (".. [1] A source,\n   continued.\n", "[1] A source,\ncontinued."),
        (".. image:: x.png\n   :alt: x\n\ntext\n", "text"),
        (".. function:: open(path)\n\n   Opens it.\n", "`open(path)`\n\nOpens it."),
        (
            "=====  =====\nA      B\n=====  =====\n1      2\n       3\n=====  =====\n",
            "| A | B |\n| --- | --- |\n| 1 | 2 3 |",
        ),
        (
            "+---+---+\n| A | B |\n+===+===+\n| 1 | 2 |\n|   | 3 |\n+---+---+\n",
            "| A | B |\n| --- | --- |\n| 1 | 2 3 |",
        ),
    ],
)
def test_blocks(source: str, expected: str) -> None:
    assert written(source) == expected


@pytest.mark.parametrize(
    ("source", "title"),
    [
        (
            "PEP: 8\nTitle: Style Guide for\n  Python Code\nStatus: Active\n\n\nIntroduction\n====\n",
            "Style Guide for Python Code",
        ),
        ("intro\n\nThe ``real`` title\n==================\n", "The real title"),
        ("just text\n", None),
        ("A talk\n\nTitle: not a field here\n", None),
    ],
)
def test_the_title(source: str, title: str | None) -> None:
    assert Rst().parse(source.encode(), "a.rst").title == title


def test_headings_are_found_inside_no_literal_block() -> None:
    assert "#" not in written("Example::\n\n    Not a title\n    ===========\n\nend\n").replace("```", "")


def test_an_unknown_directive_keeps_its_words() -> None:
    assert "every word" in written(".. strange-thing:: arg\n\n   every word\n")


def test_bottomless_nesting_ends() -> None:
    source = "".join(f"{' ' * (3 * depth)}.. note::\n\n" for depth in range(60)) + " " * 180 + "deep\n"
    assert "deep" in written(source)
