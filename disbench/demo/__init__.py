"""The demo: a local web page for segmenting photos by clicks with any method (docs/demo.md)."""
