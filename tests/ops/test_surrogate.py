import math

import pytest
import torch

from mmsnn.ops import SURROGATES, fire, surrogate_gradient

NAMES = ('arctan', 'rectangle', 'sigmoid', 'triangle')
every_surrogate = pytest.mark.parametrize('name', NAMES)
every_width = pytest.mark.parametrize('width', [0.3, 1.0, 2.5])


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_four_surrogates():
    assert sorted(SURROGATES) == list(NAMES)


@every_surrogate
@every_width
def test_unit_area_and_peak(name, width):
    # u = width * tan(angle) brings the whole line to a finite interval, heavy tails included.
    n = 400_000
    angle = ((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5) * math.pi
    stretch = width / angle.cos() ** 2 * (math.pi / n)
    u = width * angle.tan()
    g = surrogate_gradient(u, name, width)
    assert (g * stretch).sum().item() == pytest.approx(1, abs=1e-4)
    assert g.min() >= 0
    assert g.max().item() == pytest.approx(1 / width, rel=1e-4)
    assert surrogate_gradient(double(0), name, width).item() == pytest.approx(1 / width, rel=1e-12)
    torch.testing.assert_close(g, g.flip(0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ('name', 'width', 'u', 'expected'),
    [
        ('rectangle', 2.0, [-1.01, -0.99, 0.0, 0.99, 1.01], [0, 0.5, 0.5, 0.5, 0]),
        ('triangle', 2.0, [-2.5, -1.0, 0.0, 0.5, 2.0], [0, 0.25, 0.5, 0.375, 0]),
        # pi u / width = pi/2 and pi: 1 / (2 (1 + pi^2 / 4)) and 1 / (2 (1 + pi^2))
        ('arctan', 2.0, [1.0, -2.0], [0.5 / (1 + math.pi**2 / 4), 0.5 / (1 + math.pi**2)]),
        # 4 u / width = 2 and p = 1 / (1 + e^-2): 2 p (1 - p) = 2 e^-2 / (1 + e^-2)^2
        ('sigmoid', 2.0, [1.0], [2 * math.exp(-2) / (1 + math.exp(-2)) ** 2]),
    ],
)
def test_values(name, width, u, expected):
    torch.testing.assert_close(surrogate_gradient(double(*u), name, width), double(*expected))


def test_known_names_elsewhere():
    u = torch.linspace(-3, 3, 101, dtype=torch.float64)
    # SpikingJelly's ATan(alpha): alpha / 2 / (1 + (pi / 2 * alpha * u)^2), here alpha = 2.
    atan = 2 / 2 / (1 + (math.pi / 2 * 2 * u) ** 2)
    torch.testing.assert_close(surrogate_gradient(u, 'arctan', 1.0), atan, rtol=1e-12, atol=0)
    # SpikingJelly's Sigmoid(alpha = 4) is the derivative of sigmoid(4 u).
    x = u.clone().requires_grad_()
    torch.sigmoid(4 * x).sum().backward()
    torch.testing.assert_close(surrogate_gradient(u, 'sigmoid', 1.0), x.grad)
    # STBP's rectangle of width a: (1/a) sign(|u| < a/2).
    stbp = (u.abs() < 0.75 / 2).double() / 0.75
    torch.testing.assert_close(surrogate_gradient(u, 'rectangle', 0.75), stbp, rtol=1e-12, atol=0)


@every_surrogate
def test_fire_is_a_step_with_the_surrogate_as_derivative(name):
    u = double(-2, -1e-300, -0.0, 0.0, 1e-300, 0.2, 3).requires_grad_()
    s = fire(u, name, 0.7)
    assert s.tolist() == [0, 0, 1, 1, 1, 1, 1]  # exactly at the threshold fires
    g = torch.linspace(-1, 2, 7, dtype=torch.float64)
    s.backward(g)
    torch.testing.assert_close(u.grad, g * surrogate_gradient(u.detach(), name, 0.7))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@every_surrogate
def test_dtype_is_kept(name, dtype):
    u = torch.linspace(-1, 1, 5).to(dtype)
    assert fire(u, name).dtype == dtype
    assert surrogate_gradient(u, name).dtype == dtype


@pytest.mark.parametrize('call', [fire, surrogate_gradient])
@pytest.mark.parametrize(
    ('name', 'width', 'match'),
    [
        ('relu', 1.0, r"unknown surrogate 'relu': choose one of \['arctan'"),
        ('arctan', 0.0, 'surrogate_width must be a positive number, got 0.0'),
        ('arctan', -1.0, 'got -1.0'),
        ('arctan', math.nan, 'got nan'),
        ('arctan', math.inf, 'got inf'),
    ],
)
def test_refusals(call, name, width, match):
    with pytest.raises(ValueError, match=match):
        call(torch.zeros(1), name, width)
