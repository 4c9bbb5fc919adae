"""What a spiking network does: Jacobians and gradients by depth."""

from .isometry import (
    ISOMETRIC_PHI,
    SOUND_GRADIENT,
    BlockIsometry,
    Isometry,
    jacobian_moment,
    measure_isometry,
    residual_blocks,
)

__all__ = [
    'ISOMETRIC_PHI',
    'SOUND_GRADIENT',
    'BlockIsometry',
    'Isometry',
    'jacobian_moment',
    'measure_isometry',
    'residual_blocks',
]
