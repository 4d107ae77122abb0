"""Choices that the command line and the library share; imported by the command line, so it loads nothing."""

from __future__ import annotations

from typing import Literal

Selection = Literal["oracle-first", "oracle-all", "score"]
"""How one of several candidates is kept (`disbench.harness.protocol.Protocol`)."""
Store = Literal["none", "kept", "all"]  # which masks a run stores
Granularity = Literal["none", "truth", "oracle", "oracle-85"]
"""What a method is told of the size of the target (`disbench.harness.protocol.Protocol`)."""
Exif = Literal["ignore", "apply"]
"""A photograph's EXIF orientation: its pixels are read as stored, or turned as viewers show them."""
EngineName = Literal["local", "ray"]  # where workers run: processes of this machine, or actors of a Ray cluster
MethodStatus = Literal["native", "bridge", "published-only"]
"""How a method can be run: in this process's Python, over the bridge, or not at all."""
