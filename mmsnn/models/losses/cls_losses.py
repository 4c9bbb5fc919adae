"""Cross entropy on the decoded output, or on every time step's."""

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ClsLoss(nn.Module):
    r"""Cross entropy, with label smoothing where asked for.

    .. math::
        L = -\sum_k q_k \log \mathrm{softmax}(z)_k \qquad
        q_k = (1 - \varepsilon)\, y_k + \varepsilon / K

    Args:
        label_smoothing: epsilon, in [0, 1).
        loss_weight: Factor on the loss.

    Raises:
        ValueError: ``label_smoothing`` out of range.

    Example:
        >>> import torch
        >>> from mmsnn.models import ClsLoss
        >>> ClsLoss()(torch.zeros(2, 10), torch.tensor([3, 7]))
        tensor(2.3026)
    """

    #: Whether the loss takes the logits of every time step, (T, B, K), instead of (B, K).
    per_step = False

    def __init__(self, label_smoothing: float = 0.0, loss_weight: float = 1.0):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f'label_smoothing must lie in [0, 1), got {label_smoothing!r}')
        self.label_smoothing = label_smoothing
        self.loss_weight = loss_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over the batch.

        Args:
            logits: (B, K).
            target: Labels (B,), or distributions over the classes (B, K).

        Returns:
            Scalar.
        """
        loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
        return self.loss_weight * loss


@MODELS.register_module()
class TETLoss(ClsLoss):
    r"""Temporal efficient training: the cross entropy of every time step, averaged over time.

    .. math::
        L = \frac{1}{T} \sum_t \mathrm{CE}(z[t], y)

    where the cross entropy of the mean, ``ClsLoss``, lets single steps stay wrong. Source: Deng et
    al. 2022, section 4 (without their second term, which draws the outputs to a constant).

    Args:
        label_smoothing: epsilon, in [0, 1).
        loss_weight: Factor on the loss.

    Example:
        >>> import torch
        >>> from mmsnn.models import TETLoss
        >>> TETLoss()(torch.zeros(4, 2, 10), torch.tensor([3, 7]))
        tensor(2.3026)
    """

    per_step = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean over time and batch.

        Args:
            logits: (T, B, K).
            target: Labels (B,), or distributions over the classes (B, K).

        Returns:
            Scalar.
        """
        repeats = (len(logits),) + (1,) * (target.dim() - 1)
        return super().forward(logits.flatten(0, 1), target.repeat(*repeats))
