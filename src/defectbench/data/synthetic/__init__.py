"""Synthetic data sets: real photographs with rendered defects and masks."""
