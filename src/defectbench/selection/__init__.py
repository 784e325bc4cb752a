"""Choosing a model from a table of published ones."""
