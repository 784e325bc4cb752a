"""What training loops share: optimisation, memory, balance, augmentation, checkpoints."""
