"""DISNet: a proposal network for the first click, a refinement network for the later ones, their training."""
