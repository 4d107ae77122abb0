"""Methods without training."""
