import pytest
import winograd


def test_a_row():
    cells = winograd.row(64, 20, rounds=3).strip('| ').split(' | ')
    assert cells[0] == '256 -> 64, 20x20'
    conv, ours, ratio, *errors = map(float, cells[1:])
    assert ratio == pytest.approx(ours / conv, abs=0.02 + 0.02 * ratio)
    assert all(0 < error < 1e-4 for error in errors)
