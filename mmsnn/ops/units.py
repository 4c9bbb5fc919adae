"""Which units of the CPU may be used: those it has, unless MMSNN_CPU_ISA hides the newer ones."""

import os
from functools import cache
from typing import Any, Optional

import torch

#: What MMSNN_CPU_ISA may name, oldest first: these units and all older ones are used.
LEVELS = ('avx2', 'avx512', 'vnni')


class SettingError(ValueError):
    """A setting, of a config or the environment, that can't be meant; the message says why."""


def _checked(name: Optional[str]) -> Optional[str]:
    if name and name not in LEVELS:
        raise SettingError(f'unknown units {name!r} in MMSNN_CPU_ISA: choose one of {list(LEVELS)}')
    return name or None


#: Beginnings of the names, as torch has them, of what each level hides.
_HIDDEN = {
    'avx2': ('avx512', 'avx10', 'amx'),
    'avx512': ('avx512_vnni', 'avx512_bf16', 'avx512_fp16', 'avx10', 'amx'),
    'vnni': ('avx512_bf16', 'avx512_fp16', 'avx10', 'amx'),
}
#: The newest units that may be used, or None for all that the CPU has.
NEWEST = _checked(os.environ.get('MMSNN_CPU_ISA'))


def build_flags() -> tuple[str, ...]:
    """Compile flags of kernels that keep to these units.

    VNNI needs none: its kernel is called where :func:`has_vnni` alone.
    """
    return ('-DMMSNN_NO_AVX512',) if NEWEST == 'avx2' else ()


@cache
def has_vnni() -> bool:
    """Whether there are units for dot products of bytes, in AVX-512."""
    return NEWEST in (None, 'vnni') and _torch_says('_is_vnni_supported')


@cache
def has_amx() -> bool:
    """Whether there are units for matrices of bfloat16 and of bytes."""
    return NEWEST is None and _torch_says('_is_amx_tile_supported')


def _torch_says(name: str) -> bool:
    return getattr(torch.cpu, name, lambda: False)()


def capabilities() -> dict[str, Any]:
    """``torch.cpu.get_capabilities()``, empty where torch is too old to tell."""
    has: dict[str, Any] = getattr(torch.cpu, 'get_capabilities', dict)()
    hidden = _HIDDEN[NEWEST] if NEWEST else ()
    return {key: False if key.startswith(hidden) else value for key, value in has.items()}
