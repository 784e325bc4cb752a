"""Tools that know nothing of the bench."""
