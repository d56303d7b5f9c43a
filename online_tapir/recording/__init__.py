"""A run on disk: its frames as they were tracked, its tracks, and all that is needed to run it again."""
