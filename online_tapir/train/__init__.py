"""Training of the small model: settings, losses, the training loop, distillation. Not needed for inference."""
