"""Weights in the store, and the hub that they come from."""
