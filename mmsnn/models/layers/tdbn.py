"""Threshold-dependent batch normalisation, of one process or of all."""

from typing import Union

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function

from ...ops import channel_stats, compute_dtype


@MODELS.register_module()
class TDBN(nn.BatchNorm2d):
    r"""Threshold-dependent batch normalisation over time, batch and space.

    .. math::
        y = \lambda_k\, \alpha V_{th}\, \frac{x - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k

    with mean and variance of channel k taken over (T, B, H, W): it is batch normalisation of a
    tensor whose time is folded into the batch, with a scaled affine. ``weight`` is lambda and
    ``bias`` is beta. Source: Zheng et al. 2021, section 3 (tdBN).

    A tool that folds or converts by ``weight`` alone, such as mmcv's ``fuse_conv_bn`` or
    ``SyncBatchNorm.convert_sync_batchnorm``, loses the factor alpha * V_th. For statistics over all
    processes of a distributed training take :class:`SyncTDBN`.

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
        >>> import torch
        >>> from mmsnn.models import TDBN
        >>> TDBN(8)(torch.rand(4, 2, 8, 5, 5)).shape
        torch.Size([4, 2, 8, 5, 5])
    """

    _abbr_ = 'bn'

    # Never None, as they may be in its base: tdBN takes no ``track_running_stats``.
    running_mean: Tensor
    running_var: Tensor

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
        """What stands in the place of a batch norm's weight, (C,), lambda * alpha * V_th."""
        return self.weight * (self.alpha * self.v_threshold)

    def scale_and_shift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        r"""The normalisation of ``x`` as one factor and one summand a channel.

        .. math::
            scale_k = \frac{\lambda_k\, \alpha V_{th}}{\sqrt{\sigma_k^2 + \epsilon}} \qquad
            shift_k = \beta_k - \mu_k\, scale_k

        In training it is one step of the norm like :meth:`forward`: the running statistics move,
        and gradients flow through the statistics of ``x``. It is what a kernel takes that
        normalises on the way, such as that of :func:`mmsnn.ops.lif`.

        Args:
            x: (T*B, C, H, W) or (T, B, C, H, W).

        Returns:
            Scale and shift, (C,) each, in float32 (float64 where ``x`` is).

        Raises:
            ValueError: Input of another rank, or one value a channel in training.
        """
        self._check_input_dim(x)
        if self.training:
            mean, var, count = self._statistics(x)
            momentum = batch_norm_arguments(self)['momentum']
            with torch.no_grad():
                unbiased = var * (count / (count - 1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)
        else:
            mean, var = (
                value.to(compute_dtype(value.dtype))
                for value in (self.running_mean, self.running_var)
            )
        scale = self.scale * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Union[int, Tensor]]:
        """Mean and biased variance by channel, and how many values they are of."""
        axis = x.dim() - 3
        count = x.numel() // x.shape[axis]
        if count < 2:
            raise ValueError(
                'statistics need more than one value a channel, got an input of shape '
                f'{tuple(x.shape)}'
            )
        return *channel_stats(x, axis), count

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


class _SumOverProcesses(Function):
    """All-reduce that can be differentiated: what one process gets, all have contributed to."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _SumOverProcesses.apply(grad.contiguous())


@MODELS.register_module()
class SyncTDBN(TDBN):
    r"""tdBN whose statistics in training are those of all processes.

    It is to :class:`TDBN` what ``SyncBatchNorm`` is to ``BatchNorm2d`` under
    ``DistributedDataParallel``, and works on the CPU (gloo) too. With n_p values of mean m_p and
    biased variance v_p in process p,

    .. math::
        \mu = \frac{\sum_p n_p m_p}{\sum_p n_p} \qquad
        \sigma^2 = \frac{\sum_p n_p (v_p + (m_p - \mu)^2)}{\sum_p n_p}

    which loses nothing to cancellation, and both sums are differentiated: outputs, gradients and
    running statistics are those of :class:`TDBN` on the joined batch. The processes may have
    batches and images of different sizes. Source: the parallel variance of Chan et al. 1979.

    Outside a process group, alone in one, or in eval mode, it is :class:`TDBN`. As an mmcv norm
    layer: ``norm_cfg=dict(type='SyncTDBN')``; checkpoints fit both.

    Args:
        num_features: As of :class:`TDBN`, and so are the others.
        eps: Likewise.
        momentum: Likewise.
        v_threshold: Likewise.
        alpha: Likewise.

    Raises:
        ValueError: As of :class:`TDBN`.

    Example:
        >>> import torch
        >>> from mmsnn.models import SyncTDBN
        >>> SyncTDBN(8)(torch.rand(4, 2, 8, 5, 5)).shape
        torch.Size([4, 2, 8, 5, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise.

        Args:
            x: (T*B, C, H, W) or (T, B, C, H, W).

        Returns:
            Tensor of the same shape.
        """
        if not self.synchronises:
            return super().forward(x)
        scale, shift = (value.view(-1, 1, 1) for value in self.scale_and_shift(x))
        return torch.addcmul(shift, x.to(scale.dtype), scale).to(x.dtype)

    @property
    def synchronises(self) -> bool:
        """Whether the statistics are taken over more than this process."""
        return (
            self.training
            and dist.is_available()
            and dist.is_initialized()
            and dist.get_world_size() > 1
        )

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, Union[int, Tensor]]:
        if not self.synchronises:
            return super()._statistics(x)
        axis = x.dim() - 3
        n = x.numel() // x.shape[axis]
        mean, var = channel_stats(x, axis)
        sums = _SumOverProcesses.apply(torch.cat([n * mean, mean.new_tensor([n])]))
        count = sums[-1].detach()
        joint_mean = sums[:-1] / count
        joint_var = _SumOverProcesses.apply(n * (var + (mean - joint_mean) ** 2)) / count
        return joint_mean, joint_var, count
