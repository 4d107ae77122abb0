"""Sampling of diverse ground truth: hierarchy, proximity, diverse sets, shards."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from disbench.sampling.hierarchy import build_hierarchy as build_hierarchy
    from disbench.sampling.job import make_shards as make_shards
    from disbench.sampling.merged_parts import merge_parts as merge_parts
    from disbench.sampling.proximity import proximity_graph as proximity_graph
    from disbench.shards.reader import DiverseSet as DiverseSet
    from disbench.shards.reader import read_sets as read_sets
    from disbench.shards.training_set import DiverseSetDataset as DiverseSetDataset

_PUBLIC = {
    "build_hierarchy": "disbench.sampling.hierarchy",
    "proximity_graph": "disbench.sampling.proximity",
    "make_shards": "disbench.sampling.job",
    "merge_parts": "disbench.sampling.merged_parts",
    "read_sets": "disbench.shards.reader",
    "DiverseSet": "disbench.shards.reader",
    "DiverseSetDataset": "disbench.shards.training_set",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
