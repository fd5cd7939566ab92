"""Arithmetic over whole columns: integer arrays in, integer arrays out, compiled by numba when it is worth it.

Kernels know no objects, no clock and no I/O, use no fastmath and return integers. Each is written once in plain
Python, which is both the source that numba compiles and the twin that serves until the compiled form is there.
"""

from kiki_agent.kernels.compile import Kernel, compile_in_child, kernel, kernels, load_compiled

__all__ = ["Kernel", "compile_in_child", "kernel", "kernels", "load_compiled"]
