"""Watches the firing rates while a network trains."""

from typing import Optional

from mmdet.registry import HOOKS
from mmengine.hooks import Hook

from ...analysis import LayerProfile, SpikeProfiler
from ...models.layers import LIFNeuron
from ...models.layers.gates import Gate
from ..wrappers import unwrap


@HOOKS.register_module()
class SpikeStatsHook(Hook):
    """Log firing rates every so many iterations, and warn where a layer dies or saturates.

    One iteration in ``interval`` is measured; the others cost nothing. For every layer of neurons
    the message hub and every backend of the visualizer get ``spikes/<layer>/firing_rate``,
    ``spikes/<layer>/dead`` and ``spikes/<layer>/saturated`` (shares of channels). A layer is
    called silent where all its channels are dead on that batch, and saturated where all of them are
    saturated; the first time that happens to a layer there is a warning. A learned gate's neurons
    start silent by intention, and are not warned about.

    Under distributed training each process looks at its own images, and the first one's are logged.

    Args:
        interval: Measure one iteration in so many.
        dead_below: A channel is dead where its firing rate is not above this; 0 is one that never
            fired.
        saturated_above: A channel is saturated where its firing rate reaches this.

    Raises:
        ValueError: An interval below 1, or rates that are not 0 <= dead_below < saturated_above <=
            1; at the start of training, a model without spiking neurons.

    Example:
        In a config: ``custom_hooks = [dict(type='SpikeStatsHook', interval=50)]``.
    """

    def __init__(self, interval: int = 100, dead_below: float = 0.0, saturated_above: float = 0.95):
        if not isinstance(interval, int) or interval < 1:
            raise ValueError(f'interval must be a whole number of at least 1, got {interval!r}')
        if not 0 <= dead_below < saturated_above <= 1:
            raise ValueError(
                'rates must be 0 <= dead_below < saturated_above <= 1, got '
                f'dead_below={dead_below!r} and saturated_above={saturated_above!r}'
            )
        self.interval = interval
        self.dead_below = dead_below
        self.saturated_above = saturated_above
        self._profiler: Optional[SpikeProfiler] = None
        self._warned: set[tuple[str, str]] = set()

    def before_train(self, runner) -> None:
        """Refuse a model that has nothing to watch.

        Args:
            runner: The runner.
        """
        model = unwrap(runner.model)
        if not any(isinstance(m, LIFNeuron) for m in model.modules()):
            raise ValueError(
                f'SpikeStatsHook watches spiking neurons, and {type(model).__name__} has '
                'none: take the hook out of custom_hooks'
            )

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Start to look where this iteration is to be measured.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The batch.
        """
        self._stop()
        if self.every_n_train_iters(runner, self.interval):
            profiler = SpikeProfiler(unwrap(runner.model), operations=False)
            self._profiler = profiler.__enter__()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log what was seen.

        Args:
            runner: The runner.
            batch_idx: Number of the batch.
            data_batch: The batch.
            outputs: Losses.
        """
        profiler = self._stop()
        if profiler is None:
            return
        scalars = {}
        states: dict[str, list[str]] = dict(silent=[], saturated=[])
        gates = [name for name, m in unwrap(runner.model).named_modules() if isinstance(m, Gate)]
        for layer in profiler.result().layers:
            dead, saturated = self._shares(layer)
            key = f'spikes/{layer.name}'
            scalars[f'{key}/firing_rate'] = layer.firing_rate
            scalars[f'{key}/dead'] = dead
            scalars[f'{key}/saturated'] = saturated
            if dead == 1 and not any(layer.name.startswith(f'{gate}.') for gate in gates):
                states['silent'].append(layer.name)
            if saturated == 1:
                states['saturated'].append(layer.name)
        for key, value in scalars.items():
            runner.message_hub.update_scalar(key, value)
        runner.visualizer.add_scalars(scalars, step=runner.iter + 1)
        for state, names in states.items():
            self._warn(runner, state, names)

    def after_train(self, runner) -> None:
        """Leave nothing behind.

        Args:
            runner: The runner.
        """
        self._stop()

    def _stop(self) -> Optional[SpikeProfiler]:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.__exit__(None, None, None)
        return profiler

    def _shares(self, layer: LayerProfile) -> tuple[float, float]:
        rates = layer.rate_by_channel
        dead, saturated = rates <= self.dead_below, rates >= self.saturated_above
        return float(dead.mean()), float(saturated.mean())

    def _warn(self, runner, state: str, names: list[str]) -> None:
        new = [name for name in names if (name, state) not in self._warned]
        if not new:
            return
        self._warned.update((name, state) for name in new)
        why = {
            'silent': 'no channel fires: look at v_threshold (too high?) and the norms before it',
            'saturated': 'all channels fire nearly always: look at v_threshold (too low?) and the '
            'norms before it',
        }
        runner.logger.warning(
            f'mmsnn: {state} at iteration {runner.iter + 1}: {", ".join(new)}; {why[state]}'
        )
