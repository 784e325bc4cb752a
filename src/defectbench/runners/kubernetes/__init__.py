"""Cells as Jobs of a Kubernetes cluster: submitted, looked at, explained, ended."""
