"""A causal TAPIR: weights in modules, a stream's state outside them."""
