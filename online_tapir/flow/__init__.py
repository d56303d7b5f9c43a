"""Sparse optical flow between the model's answers, and the filter that joins both."""
