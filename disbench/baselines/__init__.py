"""Segmentation methods, one file or folder each, and the cards that describe them (`baselines/*.toml`)."""
