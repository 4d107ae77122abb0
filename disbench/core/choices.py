"""Choices shared by the command line and the library; imports nothing heavy, to keep the command line fast."""

from __future__ import annotations

from typing import Literal

Selection = Literal["oracle-first", "oracle-all", "score"]
"""How one of several candidates is selected (`disbench.harness.protocol.Protocol`)."""
Store = Literal["none", "kept", "all"]  # which masks a run stores
Granularity = Literal["none", "truth", "oracle", "oracle-85"]
"""What a method is told about the target's size (`disbench.harness.protocol.Protocol`)."""
Exif = Literal["ignore", "apply"]
"""Whether a photograph's EXIF orientation is applied, as image viewers do."""
EngineName = Literal["local", "ray"]  # where workers run: processes on this machine, or actors of a Ray cluster
MethodStatus = Literal["native", "bridge", "published-only"]
"""How a method can be run: in this process's Python, over the bridge, or not at all."""
