"""A protocol for defectbench in a package of its own."""
