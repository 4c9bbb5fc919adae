"""The kernels behind the operators: the reference, C and Triton."""
