"""Drawing: curves, and pictures of samples."""
