"""The paper's tables and figures from stored runs."""
