"""What the machine computes with, and how much of it a container is granted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag_service.embedding.processors import available_cores, granted_cores, usual_formats


@pytest.mark.parametrize(
    ("flags", "formats"),
    [
        ("flags : sse avx512_bf16 fma", ("bfloat16",)),
        ("flags : avx512_bf16 avx512_vnni", ("int8", "bfloat16")),
        ("flags : avx512f avx512_vnni", ("int8", "float32")),
        ("flags : avx512_bf16 avx512_vnni amx_bf16 amx_int8", ("bfloat16",)),
        ("flags : avx512f no_avx512_bf16x", ("float32",)),
    ],
)
def test_the_number_formats_are_those_that_the_cpu_has_units_for(
    tmp_path: Path, flags: str, formats: tuple[str, ...]
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(flags)
    assert usual_formats(file) == formats


def test_a_system_that_lists_no_cpu_flags_gets_float32(tmp_path: Path) -> None:
    assert usual_formats(tmp_path / "nothing") == ("float32",)


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
