"""From cells to Kubernetes manifests, without a cluster."""
