"""Training and ablation of DISNet."""
