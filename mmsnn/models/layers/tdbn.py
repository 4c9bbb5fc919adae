"""Threshold-dependent batch normalisation."""

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class TDBN(nn.BatchNorm2d):
    r"""Threshold-dependent batch normalisation over time, batch and space.

    .. math::
        y = \lambda_k\, \alpha V_{th}\, \frac{x - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k

    with mean and variance of channel k taken over (T, B, H, W): it is batch normalisation of a
    tensor whose time is folded into the batch, with a scaled affine. ``weight`` is lambda and
    ``bias`` is beta. Source: Zheng et al. 2021, section 3 (tdBN).

    A tool that folds or converts by ``weight`` alone, such as mmcv's ``fuse_conv_bn`` or
    ``SyncBatchNorm.convert_sync_batchnorm``, loses the factor alpha * V_th.

    As an mmcv norm layer: ``norm_cfg=dict(type='TDBN', v_threshold=1.0)``.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance.
        momentum: Of the running statistics.
        v_threshold: Threshold V_th of the neuron behind it.
        alpha: 1, or 1/sqrt(n) in the last tdBN of each of n branches that add up in front of one
            neuron, so that their sum again has the threshold's variance.

    Raises:
        ValueError: ``v_threshold`` or ``alpha`` not positive, or input neither (T*B, C, H, W) nor
            (T, B, C, H, W).

    Example:
        >>> TDBN(8)(torch.rand(4, 2, 8, 5, 5)).shape
        torch.Size([4, 2, 8, 5, 5])
    """

    _abbr_ = 'bn'

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        v_threshold: float = 1.0,
        alpha: float = 1.0,
    ):
        super().__init__(num_features, eps=eps, momentum=momentum)
        if not v_threshold > 0 or not alpha > 0:
            raise ValueError(
                'TDBN needs a positive v_threshold and alpha, got '
                f'v_threshold={v_threshold!r}, alpha={alpha!r}'
            )
        self.v_threshold = v_threshold
        self.alpha = alpha

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() not in (4, 5):
            raise ValueError(
                'TDBN takes (T*B, C, H, W) or (T, B, C, H, W), got an input of shape '
                f'{tuple(x.shape)}'
            )

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (T*B, C, H, W) or (T, B, C, H, W).

        Returns:
            Tensor of the same shape.
        """
        self._check_input_dim(x)
        if x.dim() == 5:
            return self.forward(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return F.batch_norm(x, **batch_norm_arguments(self))

    @property
    def scale(self) -> Tensor:
        """(C,), lambda * alpha * V_th: what stands in the place of a batch norm's weight."""
        return self.weight * (self.alpha * self.v_threshold)

    def extra_repr(self) -> str:
        """What `print(module)` shows."""
        return f'{super().extra_repr()}, v_threshold={self.v_threshold}, alpha={self.alpha}'


def batch_norm_arguments(norm: nn.BatchNorm2d) -> dict:
    """What ``torch.nn.functional.batch_norm`` takes beside its input, for one forward pass.

    In training it counts the batch, as ``BatchNorm2d.forward`` does.

    Args:
        norm: A tdBN or a batch norm.

    Returns:
        Keyword arguments, which :func:`mmsnn.ops.norm_lif` takes as well.
    """
    momentum = norm.momentum
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # cumulative average
            momentum = 1 / norm.num_batches_tracked.item()
    return dict(
        weight=norm.scale if isinstance(norm, TDBN) else norm.weight,
        bias=norm.bias,
        running_mean=norm.running_mean,
        running_var=norm.running_var,
        training=norm.training or norm.running_mean is None,
        momentum=momentum or 0.0,
        eps=norm.eps,
    )
