"""`ToTensor`, `Normalize`, `Compose` and `Resize`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from torchvision.transforms import functional

__all__ = ["Compose", "Normalize", "Resize", "ToTensor", "functional"]


class ToTensor:
    """uint8 (height, width, channels) to float32 (channels, height, width) in [0, 1]; a PIL image too."""

    def __call__(self, image: Any) -> torch.Tensor:
        """The tensor."""
        array = np.array(image)
        array = array[:, :, None] if array.ndim == 2 else array
        tensor = torch.from_numpy(array.transpose(2, 0, 1)).contiguous()
        return tensor.to(torch.get_default_dtype()).div(255) if tensor.dtype == torch.uint8 else tensor


class Normalize(torch.nn.Module):
    """Subtract a mean and divide by a deviation, channel by channel."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], inplace: bool = False) -> None:
        super().__init__()
        self.mean, self.std = list(mean), list(std)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """The normalised copy."""
        mean = torch.tensor(self.mean, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        std = torch.tensor(self.std, dtype=tensor.dtype, device=tensor.device).view(-1, 1, 1)
        return tensor.clone().sub_(mean).div_(std)


class Resize(torch.nn.Module):
    """Bilinear with antialiasing, to (height, width)."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = [int(side) for side in size]

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """The resized copy."""
        batch = tensor if tensor.dim() == 4 else tensor[None]
        resized = torch.nn.functional.interpolate(
            batch, self.size, mode="bilinear", align_corners=False, antialias=True
        )
        return resized if tensor.dim() == 4 else resized[0]


class Compose:
    """One transform after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """The last one's outcome."""
        for transform in self.transforms:
            image = transform(image)
        return image
