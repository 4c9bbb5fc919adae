"""The C kernels: their sources, the library that is built of them, and its calls."""
