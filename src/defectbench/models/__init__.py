"""Models of both families behind one contract."""
