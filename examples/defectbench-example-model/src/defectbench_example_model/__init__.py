"""A model for defectbench in a package of its own."""
