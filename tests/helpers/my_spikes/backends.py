import numpy as np
import torch
from torch import Tensor

from mmsnn.ops import GATES, Backend, LIFCall, register_backend


class Numpy(Backend):
    """LIF neurons in NumPy; gradients and all else are left to others."""

    name, device = 'numpy', 'cpu'
    dtypes = {'lif': (torch.float32,)}

    def lif(self, call: LIFCall, out: Tensor) -> None:
        """Spikes (T, B, C, ...) into `out`."""
        neuron, inner = call.neuron, (-1, *[1] * (call.x.dim() - call.channel_axis - 1))
        v = 0.0
        for t in range(call.steps):
            current = call.x.numpy() if call.time_steps else call.x[t].numpy()
            if call.scale is not None:
                current = current * call.scale.numpy().reshape(inner)
            if call.shift is not None:
                current = current + call.shift.numpy().reshape(inner)
            h = neuron.decay * v + neuron.input_scale * current
            s = (h - neuron.v_threshold >= 0).astype(np.float32)
            v = h * (1 - s) if neuron.reset == 'hard' else h - neuron.v_threshold * s
            spikes = torch.from_numpy(s)
            if call.gate is not None:
                spikes = GATES[call.gate].join(spikes, call.shortcut[t].float())
            out[t].copy_(spikes)


register_backend(Numpy())
