"""Files, remote addresses, settings, definitions and Parquet."""
