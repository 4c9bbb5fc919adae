"""Packaging of mmsnn; build and tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = {}
exec((ROOT / 'mmsnn' / 'version.py').read_text(), VERSION)

# Two stacks give the import names mmdet, mmcv and mmengine; which one is the user's choice.
STACKS = {
    'onedl': ['onedl-mmdetection==3.5.1', 'onedl-mmcv==2.3.6', 'onedl-mmengine==0.10.12'],
    'openmmlab': ['mmdet==3.3.0', 'mmcv-lite==2.1.0', 'mmengine==0.10.7'],
}

setup(
    name='mmsnn',
    version=VERSION['__version__'],
    description='Spiking neural networks for MMDetection: SG ResNet, attention spike decoding and '
    'Spiking RetinaNet',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    packages=find_packages(include=['mmsnn', 'mmsnn.*']),
    install_requires=['torch>=2.4', 'numpy', 'pycocotools', 'pillow', 'rich'],
    extras_require={
        **STACKS,
        'demo': ['scikit-learn'],
        'test': ['pytest', 'hypothesis', 'scikit-learn'],
        'lint': ['ruff==0.17.6'],
    },
)
