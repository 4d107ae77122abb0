"""Reports: tables and curves computed from stored runs; no method runs here."""
