"""Numbers of two reports, of which one may be older than some of them."""

import copy

from mmsnn.report.compare import table


def test_a_report_that_knows_no_memory_traffic():
    numbers = dict(
        task='recognition',
        scores={'accuracy/top1': 'top-1'},
        metrics={'accuracy/top1': 50.0},
        ms_per_image=2.0,
        faultless=5,
        profile=dict(firing_rate=0.1, spikes=7.0, energy=2e-6, parameters=10, memory_energy=30e-6),
    )
    name = 'energy of the memory traffic, an image'
    old = copy.deepcopy(numbers)
    del old['profile']['memory_energy']
    new = copy.deepcopy(numbers)
    new['profile']['memory_energy'] = 15e-6
    rows = {row['name']: row for row in table(numbers, new)}
    assert {key: rows[name][key] for key in ('a', 'b', 'ratio', 'better')} == {
        'a': '30.0 µJ', 'b': '15.0 µJ', 'ratio': '0.50', 'better': 'b',
    }  # fmt: skip
    rows = {row['name']: row for row in table(old, new)}
    assert {key: rows[name][key] for key in ('a', 'b', 'ratio', 'better')} == {
        'a': 'n/a', 'b': '15.0 µJ', 'ratio': '', 'better': '',
    }  # fmt: skip
    assert name not in {row['name'] for row in table(old, old)}
