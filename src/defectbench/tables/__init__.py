"""Finished results read back, and every table computed from them; draws nothing."""
