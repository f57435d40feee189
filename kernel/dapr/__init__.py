"""Dapr's building blocks, one file a block, over one channel to this process's own sidecar."""
