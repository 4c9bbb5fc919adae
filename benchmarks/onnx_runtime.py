r"""ONNX Runtime's time beside ours, on one file: a Spiking RetinaNet, whole, and its boxes.

    OMP_NUM_THREADS=2 python benchmarks/onnx_runtime.py
    OMP_NUM_THREADS=2 MMSNN_CPU_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 \\
        python benchmarks/onnx_runtime.py

SG ResNet-18, ASD, T = 4, one image; random weights whose neurons fire at 0.12. Each round runs
every row once, from a normalised image to boxes. The variables of the second command hold PyTorch
and our kernels to AVX2; ONNX Runtime has none and takes what the CPU has.
"""

import argparse
import os
import statistics
import tempfile

import cases
import machine
import numpy as np
import onnxruntime
import rates
import timing
import torch

from mmsnn.deploy import export_onnx, fuse, resolve_precision


def session(path: str, threads: int) -> onnxruntime.InferenceSession:
    """Of the CPU, with as many threads as PyTorch has."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', type=int, nargs=2, default=(320, 320), metavar=('H', 'W'))
    parser.add_argument('--rate', type=rates.rate, default=0.12, help='at which neurons fire')
    parser.add_argument('--rounds', type=timing.positive, default=30)
    args = parser.parse_args()
    setting = cases.Setting('detector', 'cpu', 18, tuple(args.size), 1, 4, rate=args.rate)
    model = cases.our_detector(setting)
    data = model.data_preprocessor(cases.photos(setting))
    images, samples = data['inputs'], data['data_samples']
    sizes = np.array([sample.img_shape for sample in samples])
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, f'{folder}/model.onnx', args.size, 1)
        runtime = session(f'{folder}/model.onnx', torch.get_num_threads())
    inputs = dict(images=images.numpy(), sizes=sizes)

    names, runs = ['ONNX Runtime fp32'], [lambda: runtime.run(None, inputs)]
    for precision in cases.PRECISIONS:
        try:
            resolve_precision(precision, torch.device('cpu'), model)
        except ValueError as error:
            print(f'not here: {precision}: {error}')
            continue
        fast = fuse(model, precision)
        names.append(f'mmsnn fused {precision}')
        runs.append(lambda fast=fast: fast.predict(images, samples))
    with torch.no_grad():
        for run in runs:
            run()
        times = timing.interleave(runs, args.rounds, 240)
    ms = [1e3 * statistics.median(taken) for taken in times]
    facts = machine.facts()
    print(
        f'{facts["cpu"]}, {facts["threads"]} threads, '
        f'mmsnn and PyTorch with {os.environ.get("MMSNN_CPU_ISA") or "all units"}, '
        f'onnxruntime {onnxruntime.__version__}, torch {torch.__version__}\n'
        f'{setting.title}, {len(times[0])} rounds\n\n| | ms | x ONNX Runtime |\n| --- | --- | --- |'
    )
    for name, value in zip(names, ms):
        print(f'| {name} | {value:.0f} | {value / ms[0]:.2f} |')


if __name__ == '__main__':
    main()
