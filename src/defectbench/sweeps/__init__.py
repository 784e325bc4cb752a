"""Sweep files: their keys, overrides, messages; and the plan of their cells."""
