"""The torch.library operators: what torch.compile, torch.export and autograd see of the kernels.

Every operator runs without kernels too, on the reference: a program exported on one machine runs
on any. Autocast needs no rule here: neurons compute in float32 inside whatever comes in.
"""
