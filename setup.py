"""Packaging of mmsnn; build and tool settings are in pyproject.toml."""

import os
import re
import runpy
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
#: Address of the repository, such as https://github.com/OWNER/mmsnn, where a release names it: what
#: README links to, and its pictures, are then shown on a package index too.
HOME = os.environ.get('MMSNN_HOME_URL', '').rstrip('/')
VERSION = runpy.run_path(str(ROOT / 'mmsnn' / 'version.py'))


class BuildKernels(build_ext):
    """Builds mmsnn/ops/backends/c/src into a plain library, which no Python or torch version pins.

    Without a compiler the package installs all the same and runs on PyTorch operations.
    """

    def get_ext_filename(self, fullname):
        return str(Path(*fullname.split('.'))) + '.so'

    def build_extension(self, ext):
        kernels = runpy.run_path(str(ROOT / 'mmsnn' / 'ops' / 'backends' / 'c' / 'build.py'))
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            kernels['build_any'](target)
        except kernels['BuildError'] as error:
            self.warn(f'mmsnn is installed without its C kernels: {error}')


def readme() -> str:
    """README as a package index shows it, which has none of the files that it links to."""
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    if not HOME:
        text = re.sub(r'!\[[^\]]*\]\((?!https?:)[^)]*\)\n*', '', text)
        return re.sub(r'\[([^\]]*)\]\((?!https?:|#)[^)]*\)', r'\1', text)
    text = re.sub(r'(!\[[^\]]*\]\()(?!https?:)', rf'\g<1>{HOME}/raw/main/', text)
    return re.sub(r'((?<!!)\[[^\]!]*\]\()(?!https?:|#)', rf'\g<1>{HOME}/blob/main/', text)


COMMANDS = {'build_ext': BuildKernels}
try:
    from setuptools.command.bdist_wheel import bdist_wheel

    class AnyPythonWheel(bdist_wheel):
        """One wheel a platform: the library is no Python extension."""

        def get_tag(self):
            return 'py3', 'none', super().get_tag()[2]

    COMMANDS['bdist_wheel'] = AnyPythonWheel
except ImportError:  # setuptools < 70.1: a wheel of this Python alone
    pass

# Two stacks give the import names mmdet, mmcv and mmengine; which one is the user's choice.
STACKS = {
    'onedl': ['onedl-mmdetection==3.5.1', 'onedl-mmcv==2.3.6', 'onedl-mmengine==0.10.12'],
    'openmmlab': [
        'mmdet==3.3.0',
        'mmcv-lite==2.1.0',
        'mmengine==0.10.7',
        # mmengine finds what _base_ = 'mmdet::...' names by pkg_resources, which 82 left out.
        'setuptools<82',
        # MMDetection's analyze_logs imports it.
        'seaborn',
    ],
}

setup(
    name='mmsnn',
    version=VERSION['__version__'],
    description='Spiking neural networks for MMDetection: SG ResNet, attention spike decoding and '
    'Spiking RetinaNet',
    long_description=readme(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.9',
    project_urls={
        **({'Source': HOME} if HOME else {}),
        'SG ResNet, ASD, Spiking RetinaNet': 'https://doi.org/10.3389/fnins.2023.1229951',
        'MMDetection': 'https://github.com/open-mmlab/mmdetection',
    },
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'License :: OSI Approved :: Apache Software License',
        'Operating System :: MacOS',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: C',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    keywords='spiking neural networks, object detection, MMDetection, neuromorphic, SNN',
    packages=find_packages(include=['mmsnn', 'mmsnn.*', 'mmsnn_cli']),
    package_data={
        # Where mim and mmengine look for configs and tools: links in a clone, files in a wheel.
        'mmsnn': [
            'py.typed',
            '.mim/model-index.yml',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/tools/**/*.py',
            '.mim/tools/*.sh',
        ],
        'mmsnn.checkpoints': ['*.pth'],
        'mmsnn.samples': ['digits/**/*'],
        'mmsnn.ops.backends.c': ['src/**/*.[ch]'],
        'mmsnn.report': ['*.html', '*.css'],
    },
    entry_points={'console_scripts': ['mmsnn = mmsnn_cli:main']},
    ext_modules=[
        Extension(
            'mmsnn.ops.backends.c._kernels', ['mmsnn/ops/backends/c/src/kernels.c'], optional=True
        )
    ],
    cmdclass=COMMANDS,
    # Before 2.6, loading weights only could run code (CVE-2025-32434).
    install_requires=['torch>=2.6', 'numpy', 'pycocotools', 'pillow', 'rich', 'jinja2'],
    extras_require={
        **STACKS,
        'demo': ['scikit-learn'],
        # Reads AEDAT 4 recordings: a wheel of 1 MB that needs numpy alone.
        'events': ['aedat>=2.1'],
        # Reads event recordings in HDF5, also those that are compressed by Blosc or ZSTD.
        'hdf5': ['h5py>=3.5', 'hdf5plugin'],
        # What `mmsnn export` writes with.
        'int8': ['safetensors>=0.4'],
        'nir': ['nir>=1.0.8,<2'],
        'onnx': ['onnx>=1.16', 'onnxscript>=0.5'],  # what runs the files is the user's choice
        'test': [
            'safetensors>=0.4',
            # It wants Python 3.10.
            'nir>=1.0.8,<2; python_version >= "3.10"',
            'pytest',
            'pytest-xdist',
            'hypothesis',
            'scikit-learn',
            'selenium',
            'aedat>=2.1',
            'h5py>=3.5',
            # To write ONNX files and run them: 120 MB in all.
            'onnx>=1.16',
            'onnxscript>=0.5',
            'onnxruntime',
            # To run docs/notebooks.
            'nbclient',
            'ipykernel',
        ],
        # What SpikingJelly imports; itself comes without its dependencies (Makefile).
        'bench': ['h5py', 'loguru', 'tensorboard', 'scienceplots'],
        'lint': ['ruff==0.17.6', 'mypy==2.4.1'],
        'docs': [
            'furo',
            'myst-nb>=1.1',
            'myst-parser>=3,<6',
            'sphinx>=7.4,<10',
            'sphinx-copybutton>=0.5.2',
            'sphinx-mathjax-offline',
            'sphinxcontrib-programoutput',
        ],
    },
)
