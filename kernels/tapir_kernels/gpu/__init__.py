"""The kernels, one file an op: the launcher has the name and the signature of the op in `tapir_kernels.reference`.

These modules import Triton. Call the ops through `tapir_kernels`, which knows where they run.
"""
