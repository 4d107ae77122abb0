"""Shards: sampled scenes stored as Parquet, and the tools that read them."""
