"""Other runtimes for the model's stages on a CPU: exported once, kept in the cache folder, compiled at every start."""
