"""Trained models as programs that PyTorch runs: ``torch.export``, and AOTInductor's packages."""

import os
from collections.abc import Sequence
from typing import Optional, Union

import torch
from torch import nn

from .plain import ExportError, folded, last_words, quiet, trace
from .whole_graph import whole_graph

#: What names of the files end in; PyTorch asks for it.
SUFFIX = '.pt2'


def export_pt2(
    model: nn.Module,
    path: Union[str, os.PathLike],
    shape: Optional[Sequence[int]] = None,
    batch_size: Optional[int] = None,
    aot_inductor: bool = False,
) -> None:
    """Write a detector or classifier as a program for PyTorch, for the CPU.

    The program is the model in eval mode and float32 at its own number of time steps, with norms
    folded. Neurons, gates, decoders, pools and the suppression of boxes are operators of mmsnn's in
    it, so that its kernels run them; who loads the file has to have imported :mod:`mmsnn.ops`.
    Inputs, outputs, the models that can be exported, and the metadata are those of
    :func:`export_onnx`.

    ========================= ===================================== ===============================
    what                      by default                            with ``aot_inductor``
    ========================= ===================================== ===============================
    the file                  the graph and its weights             a library for this machine
    who loads it              ``torch.export.load(path).module()``  ``torch._inductor``'s
                                                                    ``aoti_load_package(path)``
    metadata                  ``extra_files`` of the call           ``get_metadata()`` of what it
                                                                    gives
    needs                     nothing                               a C++ compiler, to write it
    ========================= ===================================== ===============================

    Args:
        model: The detector or classifier, not fused; it isn't changed.
        path: The file, ``.pt2``.
        shape: Height and width that all images have; None for any multiples of the padding's
            divisor (of 32 where there is none), from two times it on.
        batch_size: Number of images; None for any.
        aot_inductor: Whether to compile it.

    Raises:
        ExportError: The model can't be traced, or not for inputs of any size; it has no time step;
            the name of the file ends in something else; or it can't be compiled here.
        OSError: The file can't be written.

    Example:
        >>> import torch
        >>> from mmsnn.deploy import export_pt2
        >>> from mmsnn.models import SpikingClassifier
        >>> model = SpikingClassifier(
        ...     dict(type='SGResNet', depth=10, base_channels=8, stem='cifar'),
        ...     dict(type='SpikingClsHead', num_classes=10, in_channels=64))
        >>> export_pt2(model, 'digits.pt2', shape=(32, 32))  # doctest: +SKIP
        >>> torch.export.load('digits.pt2').module()(torch.rand(2, 3, 32, 32))  # doctest: +SKIP
    """
    path = os.fspath(path)
    if not path.endswith(SUFFIX):
        raise ExportError(f'PyTorch wants the name of the file to end in {SUFFIX}, got {path}')
    folder = os.path.dirname(path) or '.'
    if not os.access(folder, os.W_OK):
        raise OSError(f'{folder} is no folder that can be written to: choose another file')
    if aot_inductor:
        _check_compiler()
    whole = whole_graph(model, folded, shape, batch_size)
    with quiet():
        program = trace(whole.module, whole.inputs, whole.dynamic_shapes, own=True)
        if not aot_inductor:
            torch.export.save(program, path, extra_files=whole.metadata)
            return
        try:
            torch._inductor.aoti_compile_and_package(
                program,
                package_path=path,
                inductor_configs={'aot_inductor.metadata': whole.metadata},
            )
        except Exception as error:  # what a compiler can't do comes in any form
            raise ExportError(
                f'AOTInductor cannot compile the model: {last_words(error)}'
            ) from error


def _check_compiler() -> None:
    """Refuse to begin where AOTInductor won't find its compiler at the end."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise ExportError(
            'AOTInductor needs a C++ compiler, and there is none: install g++, or let the '
            'environment variable CXX name one'
        ) from None
