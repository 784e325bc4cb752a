"""What a model is put through, each in a process of its own."""
