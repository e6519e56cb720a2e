"""The pictures of a report: quality bars, latency against size, ingestion rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows: TypeAlias = Sequence[Mapping[str, Any]]
Plot: TypeAlias = Callable[[Axes, Rows], None]

mpl.use("Agg")  # no display is needed


def draw(measured: Mapping[str, Rows], report: Path) -> list[Path]:
    """One PNG beside `report` for each part that has rows to show."""
    pictures = []
    plots: dict[str, Plot] = {"quality": _quality, "scale": growth, "ingest": _ingestion}
    for name, plot in plots.items():
        if rows := measured.get(name):
            pictures.append(report.with_name(f"{report.stem}-{name}.png"))
            save(plot, rows, pictures[-1])
    return pictures


def save(plot: Plot, rows: Rows, file: Path) -> None:
    figure = Figure(figsize=(8, 4), layout="constrained")
    plot(figure.subplots(), rows)
    figure.savefig(file, dpi=110)


def _quality(axes: Axes, rows: Rows) -> None:
    for number, leg in enumerate(("dense", "lexical", "hybrid")):
        places = [place + (number - 1) * 0.27 for place in range(len(rows))]
        axes.bar(places, [row[leg] for row in rows], width=0.25, label=leg)
    axes.set_xticks(range(len(rows)), [row["collection"] for row in rows], rotation=20)
    axes.set(ylabel="nDCG@10", ylim=(0, 1))
    axes.legend()


def growth(axes: Axes, rows: Rows) -> None:
    sizes = [row["chunks"] for row in rows]
    for name in ("p50_ms", "p95_ms"):
        if name in rows[0]:
            axes.plot(sizes, [row[name] for row in rows], marker="o", label=name.split("_", maxsplit=1)[0])
    axes.set(xlabel="chunks", ylabel="hybrid search, ms", xscale="log", ylim=(0, None))
    axes.legend()
    if "mb" in rows[0]:
        memory = axes.twinx()
        memory.plot(sizes, [row["mb"] / 1000 for row in rows], color="grey", linestyle=":", marker=".")
        memory.set(ylabel="memory, GB (dotted)", ylim=(0, None))


def _ingestion(axes: Axes, rows: Rows) -> None:
    names = [f"{row['folder']} {row['round']}" for row in rows]
    axes.bar(names, [row["chunks_s"] for row in rows], width=0.4, label="through the pipeline")
    axes.plot(names, [row["alone_s"] for row in rows], "k_", markersize=24, label="embedder alone")
    axes.set(ylabel="chunks per second", ylim=(0, None))
    axes.legend()
