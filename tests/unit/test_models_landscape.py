"""Slices: few evaluations where E is smooth, every point where it is not, the same numbers."""

import numpy as np
import pytest
import torch

from models.config import preset
from models.landscape import NODES, TOLERANCE, chebyshev, slice_2d, surface
from models.model import EBVLA
from models.text import MINILM_SIZE

AXIS = np.linspace(-1.5, 1.5, 50)


class Counted:
    """A function of two variables that counts how often it is evaluated."""

    def __init__(self, function):
        self.function, self.points = function, 0

    def __call__(self, points):
        self.points += len(points)
        return self.function(points[:, 0], points[:, 1])


def exact(function, u, v):
    return function(u[None, :], v[:, None])


@pytest.mark.parametrize(
    ("function", "most"),
    [
        (lambda x, y: 15 + (x - 0.3) ** 2 + 0.5 * x * y, 250),
        (lambda x, y: np.log(np.cosh(2 * x + y)) + np.tanh(y) ** 2, 900),
    ],
)
def test_smooth_surfaces_take_few_evaluations(function, most):
    counted = Counted(function)
    found, wanted = surface(counted, AXIS, 2 * AXIS), exact(function, AXIS, 2 * AXIS)
    assert np.abs(found - wanted).max() <= 2 * TOLERANCE * np.ptp(wanted)
    assert counted.points <= most


@pytest.mark.parametrize(
    "function", [lambda x, y: np.abs(x - 0.1) + y, lambda x, y: np.sin(40 * x) * np.cos(30 * y)]
)
def test_what_is_not_smooth_is_evaluated_everywhere(function):
    found = surface(Counted(function), AXIS, AXIS)
    np.testing.assert_array_equal(found, exact(function, AXIS, AXIS))


def test_a_coarse_grid_is_evaluated_as_it_is():
    counted = Counted(lambda x, y: x + y)
    surface(counted, AXIS[:9], AXIS[:9])
    assert counted.points == 81


@pytest.mark.parametrize("nodes", NODES)
def test_interpolation_reproduces_polynomials_and_hits_nodes(nodes):
    x, matrix = chebyshev(np.linspace(2, 5, 33), nodes)
    assert (x[0], x[-1]) == (2, 5)
    axis = np.linspace(2, 5, 33)
    np.testing.assert_allclose(matrix @ (x - 3) ** 5, (axis - 3) ** 5, atol=1e-10)
    np.testing.assert_array_equal(matrix[0], np.eye(nodes)[0])


@pytest.mark.parametrize("span", [0.05, 1.5, 10.0])
def test_a_model_s_slice_agrees_with_its_energies(span):
    torch.manual_seed(0)
    model = EBVLA(preset("debug")).eval().requires_grad_(False)
    images = torch.randint(0, 256, (1, 2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        context = model.backbone(images, torch.randn(1, 8), torch.randn(1, 1, MINILM_SIZE))
        energy = model.head.bind(context)
    centre = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)
    found = slice_2d(energy, centre, 3, (1, 6), 1.5 * span, len(AXIS))
    points = np.repeat(centre[None], 2500, axis=0)
    points[:, 3, 1] = np.tile(found.u, 50)
    points[:, 3, 6] = np.repeat(found.v, 50)
    with torch.no_grad():
        wanted = energy(torch.from_numpy(points)[None]).mean(-1).numpy().reshape(50, 50)
    allowed = max(2 * TOLERANCE * np.ptp(wanted), 2e-5 * np.abs(wanted).max())
    assert np.abs(found.energies - wanted).max() <= allowed
