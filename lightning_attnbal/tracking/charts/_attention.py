"""What the attention heads do."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import altair as alt

from lightning_attnbal.tracking._detail_events import AttentionMeasured
from lightning_attnbal.tracking.charts._drawing import (
    CHARACTERS,
    Canvas,
    Drawing,
    Row,
    Table,
    data,
    described,
)
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.charts._style import EDGE, row_axis, shades
from lightning_attnbal.tracking.charts._thin import Block, block_units, chunk

_MAX_LAYERS, _MAX_HEADS = 36, 32

Heads = Mapping[str, tuple[float, ...]]


def draw_attention_entropy(stream: Stream, canvas: Canvas) -> Drawing | None:
    """How widely each head looks, on the latest batch that was measured."""
    seen = stream.last(AttentionMeasured)
    caption = (
        "Entropy of each head's attention over that of looking everywhere alike, heads from left "
        "to right. Near 0 a head looks at one place; many below 0.1 go with unstable training."
    )
    return _draw("Attention entropy", caption, seen.entropy if seen else {}, canvas)


def draw_attention_importance(stream: Stream, canvas: Canvas) -> Drawing | None:
    """How much the loss hangs on each head, on the latest batch that was measured."""
    seen = stream.last(AttentionMeasured)
    caption = (
        "How much the loss hangs on each head's output, within its layer, heads from left to "
        "right. Layers without gradient are not measured."
    )
    return _draw("Attention importance", caption, seen.importance if seen else {}, canvas)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what all have in common, but for the last part of a common beginning.

    Example:
        >>> list(short_names(["bert.layer.0.attention", "bert.layer.1.attention"]).values())
        ['layer.0', 'layer.1']
        >>> short_names(["blocks.0.attn"])
        {'blocks.0.attn': 'blocks.0.attn'}
    """
    split = [name.split(".") for name in names]
    if len(set(names)) < 2:
        return {name: name for name in names}
    shortest = min(map(len, split))
    start = next((i for i in range(shortest) if len({s[i] for s in split}) > 1), shortest)
    tails = [s[start:] for s in split]
    most = min(map(len, tails)) - 1
    end = next((i for i in range(most) if len({t[-1 - i] for t in tails}) > 1), max(0, most))
    kept = [s[max(0, start - 1) : len(s) - end] for s in split]
    return {name: ".".join(parts) for name, parts in zip(names, kept, strict=True)}


def _draw(title: str, caption: str, values: Heads, canvas: Canvas) -> Drawing | None:
    shorter = short_names(list(values))
    values = {shorter[layer]: heads for layer, heads in values.items()}
    layers = [layer for layer, heads in values.items() if heads]
    if not layers:
        return None
    blocks = block_units(layers, _MAX_LAYERS, CHARACTERS)
    rows = [row for block in blocks for row in _cells(block, values)]
    if not rows:
        return None
    step = max(10, min(20, 420 // len(blocks)))
    chart = (
        alt.Chart(data(rows))
        .mark_rect(stroke=EDGE, strokeWidth=0.3)
        .encode(
            **described(
                x=alt.X("head:O", title="head", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
                y=row_axis([block.label for block in reversed(blocks)]),
                color=shades("value", title.split()[-1], rows, domain=[0, 1]),
            )
        )
        .properties(width=canvas.plot_width, height=step * len(blocks))
    )
    size = max(len(block.members) for block in blocks)
    note = f" Up to {size} neighbouring layers share a row." if size > 1 else ""
    if max(len(values[layer]) for layer in layers) > _MAX_HEADS:
        note += " Neighbouring heads share a cell."
    table = [
        (b.name, ", ".join(f"{r['value']:.2f}" for r in rows if r["row"] == b.label))
        for b in blocks
    ]
    return Drawing(title, caption + note, chart, Table(("layer", "heads, in order"), table))


def _cells(block: Block, values: Heads) -> list[Row]:
    """The mean of a block of layers over each group of neighbouring heads."""
    most = max(len(values[layer]) for layer in block.members)
    rows = []
    for heads in chunk(range(most), _MAX_HEADS):
        cell = [
            values[layer][head]
            for layer in block.members
            for head in heads
            if head < len(values[layer]) and math.isfinite(values[layer][head])
        ]
        if cell:
            which = f"head {heads[0]}" + (f" to {heads[-1]}" if len(heads) > 1 else "")
            value = fmean(cell)
            text = f"{block.name} · {which} · {value:.2f}"
            rows.append({"row": block.label, "head": heads[0], "value": value, "text": text})
    return rows
