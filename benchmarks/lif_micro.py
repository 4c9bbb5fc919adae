"""One fused neuron against a copy of the same tensor, both layouts and dtypes, in one run.

    python benchmarks/lif_micro.py [--shape T B C H W] [--rounds N]

Rounds are interleaved and the best of each is shown: what else runs only adds to a time.
"""

import argparse
import time

import torch

from mmsnn import ops
from mmsnn.ops import backend


def measure(cases: dict, rounds: int) -> dict:
    """Least seconds of each case; every round runs every case once."""
    times = {name: [] for name in cases}
    for i in range(rounds + 3):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if i >= 3:
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--shape', type=int, nargs=5, default=[4, 1, 64, 80, 80])
    parser.add_argument('--rounds', type=int, default=100)
    parser.add_argument('--surrogate', default='arctan', choices=sorted(ops.SURROGATES))
    args = parser.parse_args()
    steps, batch, channels, height, width = args.shape
    print(
        f'shape {tuple(args.shape)}, {torch.get_num_threads()} threads, backend c: '
        f'{backend.why_not("c") or "ready"}'
    )
    print(f'{"":34}{"ms":>8}{"x copy":>8}')
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.randn(steps * batch, channels, height, width, dtype=dtype)
            x = x.contiguous(memory_format=layout).unflatten(0, (steps, batch))
            other = torch.empty_like(x)
            spikes = (torch.rand_like(x) > 0.8).to(dtype)
            grad = torch.randn_like(x)
            leaf = x.clone().requires_grad_()
            scale, shift = (torch.rand(channels).requires_grad_() for _ in range(2))
            fused = dict(scale=scale, shift=shift, shortcut=spikes, gate='or')

            def lif(x, **kwargs):
                return ops.lif(x, surrogate=args.surrogate, **kwargs)

            def step(leaf=leaf, grad=grad, **kwargs):
                leaf.grad = None
                lif(leaf, **kwargs).backward(grad)

            def reference(x=x):
                with ops.use_backend('reference'):
                    lif(x)

            def reference_step(step=step):
                with ops.use_backend('reference'):
                    step()

            def inference(x=x, fused=fused, run=lif):
                with torch.no_grad():
                    run(x, **fused)

            cases = {
                'copy': lambda other=other, x=x: other.copy_(x),
                'clone': x.clone,
                'lif forward': lambda x=x: lif(x),
                'lif forward + backward': step,
                'norm + lif + or forward': inference,
                'norm + lif + or forward + backward': lambda step=step, fused=fused: step(**fused),
                'reference lif forward': reference,
                'reference lif forward + backward': reference_step,
            }
            times = measure(cases, args.rounds)
            print(f'{str(dtype)[6:]}, {str(layout)[6:]}')
            for name, seconds in times.items():
                print(f'  {name:32}{seconds * 1e3:8.3f}{seconds / times["copy"]:8.2f}')


if __name__ == '__main__':
    main()
