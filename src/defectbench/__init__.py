"""Anomaly detector or classifier? Both families on the same folds of the same parts."""
