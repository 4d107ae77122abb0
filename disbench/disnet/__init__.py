"""DISNet: a proposal network for the first click, a refinement network for later clicks, and their training."""
