"""The command ``mmsnn``: its commands by name, and the help that lists them.

This package stands above mmsnn and imports it only when a command needs it, so that
``mmsnn --help`` comes at once and ``mmsnn doctor`` also where mmsnn cannot be imported.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata
from typing import Optional

#: Groups of commands: a command's name, the module (and function, if not main) that runs it, and
#: what it does.
COMMANDS = {
    'begin': {
        'demo': ('.demo', 'train a small detector in minutes; --quick shows one in seconds'),
        'doctor': ('.doctor', 'what is installed, what is fast here, what to mend'),
    },
    'train, evaluate, predict': {
        'train': ('.train', 'train a detector or a classifier from a config'),
        'test': ('.test', 'evaluate a checkpoint'),
        'follow': ('.follow', 'boxes in event recordings, window by window, as an animation'),
        'image-demo': ('.image_demo', 'boxes or classes on pictures of yours'),
    },
    'understand a checkpoint': {
        'report': ('.spike_report', 'all about it on one page: results, spikes, energy'),
        'anytime': ('.anytime', 'accuracy and time at T = 1 to 8 time steps'),
        'flops': ('.get_flops', 'parameters, synaptic operations, MACs, energy'),
        'fuse': ('.fuse', 'time and results fused, in every precision of this machine'),
        'benchmark': ('.benchmark', 'images a second and peak memory'),
        'isometry': ('.gradient_isometry', "which blocks keep a gradient's length"),
        'draw': ('.draw_predictions', 'saved predictions beside the true boxes'),
        'confusion-matrix': ('.mmdet_tools:confusion_matrix', 'which classes are taken for which'),
        'publish': ('.publish_model', 'leave out what only training needs'),
    },
    'deploy': {
        'export': ('.export', 'a file for other programs: onnx, nir, int8'),
    },
    'configs, data, logs': {
        'print-config': ('.mmdet_tools:print_config', 'a config with all it inherits'),
        'browse': ('.mmdet_tools:browse_dataset', 'pictures as training sees them'),
        'logs': ('.mmdet_tools:analyze_logs', "curves and times of a training's log"),
        'convert': ('.convert', 'Pascal VOC (voc) or YOLO data (yolo) to COCO format'),
        'spike': ('.spike', 'a spiking backbone and decoders in any detector of MMDetection'),
        'ann-to-spiking': ('.ann_to_spiking', "an ANN's weights for it, calibrated by images"),
        'digits': ('.digits_to_coco', 'make a small detection data set'),
        'digits-events': ('.digits_to_events', 'moving ones before a simulated event camera'),
        'digits-folder': ('.digits_to_folder', 'the same for classification'),
    },
}

EPILOG = """
A CONFIG is a file of yours, or one that comes with mmsnn or MMDetection:
mmsnn::FOLDER/NAME.py, mmdet::FOLDER/NAME.py. A config of yours begins with one of them:

  _base_ = 'mmsnn::spiking_retinanet/spiking-retinanet_sg-r18_asd_fpn_1x_coco.py'

A CHECKPOINT is a file of yours, a URL, or one that comes with mmsnn: mmsnn://NAME.

examples:
  mmsnn demo --quick
  mmsnn train mmsnn::sg_resnet/sg-r18_asd_cifar10.py --amp
  mmsnn test my_config.py work_dirs/my_config/epoch_12.pth --fuse --show-dir pictures
  mmsnn report my_config.py work_dirs/my_config/epoch_12.pth
  torchrun --nproc_per_node 8 -m mmsnn train my_config.py --launcher pytorch   # 8 GPUs

`mmsnn COMMAND --help` has the options, which are MMDetection's where it has the same."""


def help_text() -> str:
    """What ``mmsnn --help`` prints."""
    lines = [
        'usage: mmsnn COMMAND ...',
        '',
        'Spiking neural networks for MMDetection: train, test and understand them.',
    ]
    for group, commands in COMMANDS.items():
        lines += ['', f'{group}:']
        lines += [f'  {name:17} {text}' for name, (_, text) in commands.items()]
    return '\n'.join(lines) + '\n' + EPILOG


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run a command.

    Args:
        argv: Its name and its arguments; None for those of the process.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ('-h', '--help', 'help'):
        print(help_text())
        return
    if argv[0] in ('-V', '--version'):
        print(f'mmsnn {metadata.version("mmsnn")}')
        return
    name, *rest = argv
    commands = {key: value for group in COMMANDS.values() for key, value in group.items()}
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1)
        hint = f' (did you mean {near[0]}?)' if near else ''
        print(f'error: mmsnn has no command {name!r}{hint}; mmsnn --help has all', file=sys.stderr)
        sys.exit(2)
    module, _, function = commands[name][0].partition(':')
    try:
        run = getattr(importlib.import_module(module, __name__), function or 'main')
    except ImportError as error:
        sys.exit(f'error: mmsnn {name} cannot be imported: {error}. `mmsnn doctor` says more')
    run(rest)
