"""Loaders: one file a dataset."""
