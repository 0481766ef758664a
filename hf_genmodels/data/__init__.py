"""From files or a hub dataset to batches of tokens."""
