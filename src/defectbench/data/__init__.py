"""Data sets: layouts, checks, near-duplicates, archives in the store, and the synthetic one."""
