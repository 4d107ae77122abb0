"""Pure functions and small types: masks, clicks, metrics, samples, scenes."""
