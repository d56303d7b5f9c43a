"""A page to watch a run and to click in: a picture of every camera with its points, served to browsers."""
