"""Any measure over the checkpoints of a network that is trained."""
