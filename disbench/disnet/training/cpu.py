"""What makes a training step cheaper on a CPU without changing it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from disbench.disnet.options import NetworkSettings

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""
_KEPT = 2**31 - 1


def keep_memory() -> None:
    """Let glibc keep freed memory for the next step: clearing new pages costs more than most operations on them."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _KEPT)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT)


@contextmanager
def fast_products(settings: NetworkSettings) -> Iterator[None]:
    """Use oneDNN for the small network's float32 matrix products, on AMD twice as fast as MKL.

    torch uses it only where bfloat16 is allowed. oneDNN computes in bfloat16 on CPUs with AMX alone, where this does
    nothing. Nor does it for the ViT, whose attention becomes slower.
    """
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: True)()
    if settings.architecture == "vit" or matmul is None or has_amx:
        yield
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
