"""The part of torchvision that peers use to predict."""

from torchvision import ops, transforms

__version__ = "0.0.stand-in"
__all__ = ["ops", "transforms"]
