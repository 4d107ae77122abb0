"""The field's words as pure functions and small types: masks, clicks, metrics, samples, scenes."""
