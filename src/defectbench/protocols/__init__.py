"""Splits of the images, one module an experiment."""
