"""The digits classifier's backbone, whose norms have seen digits, and digits for it."""

import copy
from functools import cache

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from sklearn.datasets import load_digits

from mmsnn.utils import read_config


def digits(count=4):
    pictures = torch.as_tensor(load_digits().images[:count], dtype=torch.float32)[:, None]
    pictures = F.interpolate(pictures * 255 / 16, size=(16, 16)).expand(-1, 3, -1, -1)
    return (pictures - 127.5) / 64


def digits_backbone():
    """Random weights of the config, with every layer firing."""
    return copy.deepcopy(_backbone())


@cache
def _backbone():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    cfg = read_config('mmsnn::digits/sg-r10_asd_digits-cls.py')
    backbone = MODELS.build(cfg.model.backbone)
    backbone.init_weights()
    backbone.train()
    with torch.no_grad():
        for _ in range(12):
            backbone(digits(16))
    return backbone.eval()
