"""Files, addresses, settings, definitions, stored tables."""
