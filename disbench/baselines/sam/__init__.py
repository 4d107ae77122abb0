"""Methods on weights of Segment Anything and its descendants."""
