"""What the machine computes with, and how much of it a container is granted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag_service.embedding.processors import available_cores, granted_cores, has_fast_bfloat16


@pytest.mark.parametrize(
    ("flags", "fast"),
    [("flags : sse avx512_bf16 fma", True), ("flags : amx_bf16", True), ("flags : avx512f no_avx512_bf16x", False)],
)
def test_bfloat16_is_chosen_by_the_flags_of_the_cpu(tmp_path: Path, flags: str, fast: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(flags)
    assert has_fast_bfloat16(file) is fast


def test_a_system_that_lists_no_cpu_flags_gets_float32(tmp_path: Path) -> None:
    assert has_fast_bfloat16(tmp_path / "nothing") is False


@pytest.mark.parametrize(
    ("told", "granted"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("max 100000", None),
        ("", None),
        ("a b c", None),
    ],
)
def test_a_container_computes_with_the_time_that_it_is_granted(tmp_path: Path, told: str, granted: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(told + "\n")
    assert granted_cores(file) == granted


def test_a_system_without_quotas_grants_everything(tmp_path: Path) -> None:
    assert granted_cores(tmp_path / "nothing") is None
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
