"""Where data, weights, checkpoints and results lie."""
