"""What the supported stacks lack, in one place.

=================================  =============================  ================================
What is lacking                    Where                          Can be deleted when
=================================  =============================  ================================
``mmcv._ext``, the compiled        both stacks, as installed      wheels with compiled operators
operators, without which           from wheels: ``onedl-mmcv``    exist for the supported PyTorch
``mmdet.models`` does not import   2.3.6, ``mmcv-lite`` 2.1.0     (:mod:`mmsnn.compat.ext`,
                                                                  :mod:`mmsnn.compat.ops`)
loading MMEngine's own             ``mmengine`` 0.10.7 with       MMEngine registers its types
checkpoints with                   PyTorch >= 2.6                 with PyTorch itself
``weights_only=True``                                             (``allow_mmengine_types``)
refusing what is more than         ``onedl-mmengine`` 0.10.12:    it stops allowing ``getattr``
weights                            its list allows ``getattr``,   and stops falling back
                                   and it falls back to           (``allow_mmengine_types``,
                                   unrestricted unpickling        ``load_safely_by_default``,
                                                                  ``enforce_safe_loading``)
silence about optional parts       ``onedl-mmdetection`` 3.5.1    its import prints and warns of
                                                                  nothing that wasn't asked for
                                                                  (``quiet_import``)
=================================  =============================  ================================
"""

import logging

from mmengine.logging import print_log

from .checkpoint import (
    CheckpointError,
    DamagedCheckpointError,
    allow_mmengine_types,
    check_state_dict,
    enforce_safe_loading,
    load_checkpoint_file,
    load_safely_by_default,
    load_weights,
)
from .ext import install_ext_standin
from .quiet import quiet_coco, quiet_import, without_lines
from .stacks import stack_problem

__all__ = [
    'CheckpointError',
    'DamagedCheckpointError',
    'allow_mmengine_types',
    'check_state_dict',
    'enforce_safe_loading',
    'install_ext_standin',
    'load_checkpoint_file',
    'load_safely_by_default',
    'load_weights',
    'quiet_coco',
    'quiet_import',
    'setup',
    'stack_problem',
    'warn_of_two_stacks',
    'without_lines',
]


def warn_of_two_stacks() -> None:
    """Say so where parts of both stacks are installed: which files are whose, nobody knows then."""
    problem = stack_problem()
    if problem:
        print_log(f'mmsnn: {problem}', logger='current', level=logging.WARNING)


def setup() -> None:
    """Make the installed stack complete; to be called before MMDetection is imported."""
    warn_of_two_stacks()
    install_ext_standin()
    load_safely_by_default()
    allow_mmengine_types()
