"""Where runs are shown: MLflow."""
