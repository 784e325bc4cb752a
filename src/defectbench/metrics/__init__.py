"""Pure functions from labels, scores and maps to figures, and from figures to intervals and tests."""
