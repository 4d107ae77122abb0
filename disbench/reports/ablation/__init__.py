"""Reports on ablations."""
