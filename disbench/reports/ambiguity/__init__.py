"""Reports on the ambiguity of the first click."""
