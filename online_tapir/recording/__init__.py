"""A run on disk: the tracked frames, the tracks, and everything needed to replay it."""
