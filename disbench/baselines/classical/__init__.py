"""Training-free methods."""
