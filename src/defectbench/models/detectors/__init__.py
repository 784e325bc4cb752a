"""Detectors that learn from good pictures alone, and supervised ones."""
