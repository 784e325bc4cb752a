"""What several models are built on: backbones, filter banks, coresets, weights' formats, devices."""
