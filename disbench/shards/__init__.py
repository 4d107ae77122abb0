"""Shards: the stored form of sampled scenes, and what is read from it."""
