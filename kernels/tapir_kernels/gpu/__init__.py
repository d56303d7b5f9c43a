"""The kernels, one file per op. Each launcher has its op's name and signature in `tapir_kernels.reference`.

These modules import Triton. Call the ops through `tapir_kernels`, which picks the path for a device.
"""
