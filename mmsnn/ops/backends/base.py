"""What a backend is: a name, what it supports, and one method an operation."""

from collections.abc import Mapping, Sequence
from typing import Optional

import torch
from torch import Tensor

from ..spec import ILIF, BitsConvCall, ConvCall, LIFCall, LIFGrads

#: What there is to compute, each a method of :class:`Backend`.
OPERATIONS = (
    'lif',
    'lif_backward',
    'pooled_lif_backward',
    'ilif',
    'ilif_backward',
    'input_grad',
    'channel_stats',
    'pack',
    'unpack',
    'max_pool',
    'max_pool_backward',
    'attention_decode',
    'attention_statistics',
    'rate_decode',
    'to_bytes',
    'conv_lif',
    'event_conv',
    'event_conv_lif',
    'bits_conv',
    'bits_conv_weight_grad',
    'winograd_in',
    'winograd_out',
)


class Backend:
    """Kernels for one kind of device; register one of your own by :func:`register_backend`.

    A backend has the operations that :attr:`dtypes` names, on tensors of its device in the dtypes
    that it names there. Another backend takes all others, in the end the reference: one method is
    enough to begin with. Before a backend is used, each of its operations is compared with the
    reference on small inputs; one that gives other numbers is not used, and the log says so.

    What comes to a method is checked and laid out: a tensor with a time axis is (T, B, C, ...) with
    dense steps any distance apart, all tensors of a call in one inner layout. Results go into the
    tensors that are given for them. Spikes equal the reference's bit for bit.

    Example:
        >>> import torch
        >>> from mmsnn.ops import Backend
        >>> class Sums(Backend):
        ...     name, device = 'sums', 'cpu'
        ...     dtypes = {'rate_decode': (torch.float64,)}
        ...
        ...     def rate_decode(self, spikes, out):
        ...         torch.sum(spikes, 0, out=out).div_(len(spikes))
        >>> Sums().supports('rate_decode', torch.ones(2, 3, dtype=torch.float64))
        ''
        >>> Sums().supports('lif', torch.ones(2, 3, dtype=torch.float64))
        'sums has no lif'
    """

    #: What MMSNN_BACKEND and :func:`mmsnn.ops.set_backend` call it.
    name = ''
    #: Type of the device that it computes on, as of ``torch.device``.
    device = ''
    #: Dtypes of the first tensor of each operation that it has.
    dtypes: Mapping[str, tuple[torch.dtype, ...]] = {}
    #: Dtypes that it writes spikes in; for others they are made in float32 and converted.
    spike_dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.uint8)
    #: Whether :meth:`lif` reads its input and shortcut whatever their strides and dtypes.
    takes_any_layout = False
    #: Whether a call with ``v``, the potentials that its neurons start from and end with, can be
    #: taken. Such calls go to the reference else.
    hands_on = False

    def load(self) -> None:
        """Make ready, once, before the first use.

        Raises:
            Exception: It can't be used here; the message says why in one line.
        """

    def supports(self, operation: str, x: Tensor) -> str:
        """Why it doesn't compute this operation on this tensor, or '' if it does.

        Args:
            operation: One of ``OPERATIONS``.
            x: The first tensor of the operation; only dtype and device are looked at.

        Returns:
            The reason in a few words.
        """
        known = self.dtypes.get(operation)
        if known is not None and x.dtype in known and x.device.type == self.device:
            return ''
        if known is None:
            return f'{self.name} has no {operation}'
        if x.device.type != self.device:
            return f'{self.name} computes on {self.device}, not on {x.device.type}'
        return f'{self.name} has no {operation} for {x.dtype}'

    def gives(self, dtype: torch.dtype, shortcut: Optional[Tensor], gate: Optional[str]) -> bool:
        """Whether it writes spikes of this dtype behind this gate."""
        if gate == 'add' and shortcut is not None and dtype not in (torch.float32, shortcut.dtype):
            return False  # only the sum is rounded
        return dtype in self.spike_dtypes

    def lif(self, call: LIFCall, out: Tensor) -> None:
        """Spikes of a neuron behind its gate, (T, ...), into ``out`` (:func:`mmsnn.ops.lif`).

        With ``call.v``, of a time step's layout, it starts from these potentials and leaves its own
        there, if the backend says :attr:`hands_on`.
        """
        raise NotImplementedError

    def planned_lif(
        self, call: LIFCall, dtype: Optional[torch.dtype], out: Optional[Tensor]
    ) -> Optional[Tensor]:
        """:meth:`lif` past PyTorch's dispatcher, without a gradient, if it has a way; else None."""
        return None

    def lif_backward(self, grad: Tensor, call: LIFCall, grads: LIFGrads) -> None:
        """Gradients of :meth:`lif`, those that have a place in ``grads``."""
        raise NotImplementedError

    def pooled_lif_backward(
        self, grad: Tensor, call: LIFCall, grads: LIFGrads, bits: Tensor, windows: Sequence
    ) -> None:
        """:meth:`lif_backward` of maps whose spikes, kept as ``bits``, went through a max pool."""
        raise NotImplementedError

    def ilif(self, x: Tensor, neuron: ILIF, out: Tensor, u: Optional[Tensor] = None) -> None:
        """Whole numbers of spikes, (T, ...), into ``out`` (:func:`mmsnn.ops.ilif`).

        With ``u``, it starts from these potentials and leaves its own there; a backend that doesn't
        say :attr:`hands_on` gets none.
        """
        raise NotImplementedError

    def ilif_backward(self, grad: Tensor, x: Tensor, neuron: ILIF, grad_x: Tensor) -> None:
        """Gradient of :meth:`ilif` into ``grad_x``, of the dtype of ``x`` and ``grad``."""
        raise NotImplementedError

    def input_grad(self, y_grad: Tensor, call: LIFCall, by: tuple, grad_x: Tensor) -> None:
        """by[0] * y_grad + by[1] * x + by[2] by channel into ``grad_x``, maybe ``y_grad``."""
        raise NotImplementedError

    def channel_stats(self, x: Tensor, time_steps: int) -> tuple[Tensor, Tensor]:
        """Mean and biased variance by channel, over all other axes, in at least float32."""
        raise NotImplementedError

    def pack(self, x: Tensor, rows: int, bits: Tensor) -> bool:
        """Dense ``x`` to rows of bits in memory order; False where it isn't 0 or 1."""
        raise NotImplementedError

    def unpack(self, bits: Tensor, x: Tensor) -> None:
        """One row of bits to the values of dense ``x``, in memory order."""
        raise NotImplementedError

    def max_pool(self, x: Tensor, windows: Sequence, channels_last: bool, out: Tensor) -> None:
        """Maxima of maps (N, C, H, W) into ``out``; windows: kernel size, stride and padding."""
        raise NotImplementedError

    def max_pool_backward(
        self, grad: Tensor, kept: Tensor, windows: Sequence, channels_last: bool, grad_x: Tensor
    ) -> None:
        """Gradient of :meth:`max_pool`, from its input: bits, or as it was."""
        raise NotImplementedError

    def attention_decode(
        self, spikes: Tensor, weights: Sequence[Tensor], channels_last: bool, out: Tensor
    ) -> None:
        """:func:`mmsnn.ops.attention_decode` into ``out``, with weights of full shape."""
        raise NotImplementedError

    def attention_statistics(
        self, spikes: Tensor, channels_last: bool, out: Sequence[Tensor]
    ) -> None:
        """:func:`mmsnn.ops.attention_statistics` into the three of ``out``."""
        raise NotImplementedError

    def rate_decode(self, spikes: Tensor, out: Tensor) -> None:
        """:func:`mmsnn.ops.rate_decode` into ``out``."""
        raise NotImplementedError

    def to_bytes(self, x: Tensor, scale: float, zero: int, out: Tensor) -> None:
        """round(x / scale + zero) of dense ``x``, clipped to a byte, into ``out``."""
        raise NotImplementedError

    def conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """Spikes in bytes through a conv and its neuron, into ``out``; channels last."""
        raise NotImplementedError

    def event_conv(self, call: ConvCall, out: Tensor) -> None:
        """Spikes in bytes to currents by way of the spikes alone, into ``out``; channels last."""
        raise NotImplementedError

    def event_conv_lif(self, call: ConvCall, out: Tensor) -> None:
        """:meth:`event_conv` and the neuron behind it, into ``out``."""
        raise NotImplementedError

    def bits_conv(self, call: BitsConvCall, bias: Optional[Tensor], out: Tensor) -> None:
        """Spikes in bits to currents by way of the spikes alone, into ``out``; channels last."""
        raise NotImplementedError

    def bits_conv_weight_grad(self, grad: Tensor, call: BitsConvCall, out: Tensor) -> None:
        """The gradient of the weight of :meth:`bits_conv` into dense ``out``."""
        raise NotImplementedError

    def winograd_in(self, x: Tensor, padding: Sequence[int], first: int, places: Tensor) -> None:
        """Maps, channels last, to 36 places of the tiles from ``first`` on, (36, tiles, C)."""
        raise NotImplementedError

    def winograd_out(self, places: Tensor, bias: Tensor, first: int, out: Tensor) -> None:
        """The same the other way round, into maps of outputs, channels last."""
        raise NotImplementedError
