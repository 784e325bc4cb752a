"""Classifiers of timm's networks, and their heat maps."""
