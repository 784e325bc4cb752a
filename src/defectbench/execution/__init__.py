"""One cell, end to end: lease, checkpoints, fit and scores, and the worker that runs several cells."""
