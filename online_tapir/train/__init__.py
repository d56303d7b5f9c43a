"""Training of the small model: scenes with exact truth, losses, metrics, the loop; inference imports none of it."""
