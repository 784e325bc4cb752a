"""Pictures as models are given them: views without ids, rotated ones, timed ones."""
