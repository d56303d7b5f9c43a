"""Figures that anyone can print again: `python -m bench.<name>`. Nothing here is shipped."""
