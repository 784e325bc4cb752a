"""The documents in the store: cells, results, sweeps' records, predictions."""
