"""The configs that come with mmsnn, from any folder."""

import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Union

#: Where they lie, as MMEngine looks for them; in a clone it is a link to ``configs/``.
CONFIGS = Path(__file__).parent / '.mim' / 'configs'


def config_file(config: Union[str, os.PathLike]) -> str:
    """The file of a config.

    Args:
        config: A path; ``'PACKAGE::FOLDER/NAME.py'`` for a config of an installed package, such as
            ``mmsnn`` or ``mmdet``; or the name of one of mmsnn's, with or without ``.py``.

    Returns:
        A path; what names nothing comes back as it is.

    Example:
        >>> from mmsnn.config_files import config_file
        >>> config_file('sg-r18_asd_cifar10').endswith('configs/sg_resnet/sg-r18_asd_cifar10.py')
        True
    """
    config = os.fspath(config)
    package, mark, relative = config.partition('::')
    if mark and package.isidentifier():
        spec = find_spec(package)
        found = Path(spec.origin).parent if spec and spec.origin else None
        path = found / '.mim' / 'configs' / relative if found else None
        return str(path) if path and path.is_file() else config
    if os.path.isfile(config):  # a run in work_dirs/ has a folder of its config's name
        return config
    return config_names().get(config[:-3] if config.endswith('.py') else config, config)


@cache
def config_names() -> dict:
    """Paths of mmsnn's configs by their names; none of ``_base_``, which are parts."""
    folders = [folder for folder in sorted(CONFIGS.glob('*')) if folder.name != '_base_']
    return {path.stem: str(path) for folder in folders for path in sorted(folder.glob('*.py'))}
