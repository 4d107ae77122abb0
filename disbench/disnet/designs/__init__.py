"""Designs of the literature, and what two of them do at test time."""
