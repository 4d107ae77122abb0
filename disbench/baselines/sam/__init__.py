"""Methods with weights of Segment Anything and its descendants."""
