"""The landscape figure: the data sit where they should, on a slice whose energy is known."""

from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest

from models.types import ACTION_NAMES, DescentTrace, LandscapeSlice
from studio.viz import style
from studio.viz.descent import descent_figure
from studio.viz.landscape import Reference, at, reading, slice_figure

K, N, H, D = 6, 3, 4, 7


@pytest.fixture
def landscape() -> LandscapeSlice:
    """E(u, v) = u² + 10 v on a grid that is not square in range."""
    u = np.linspace(-1, 1, 11, dtype=np.float32)
    v = np.linspace(0, 2, 11, dtype=np.float32)
    energies = (u[None, :] ** 2 + 10 * v[:, None]).astype(np.float32)
    return LandscapeSlice(2, (1, 5), u, v, energies, np.zeros((H, D), np.float32))


@pytest.fixture
def trace() -> DescentTrace:
    rng = np.random.default_rng(0)
    timestep_energies = rng.normal(size=(K + 1, N, H)).astype(np.float32)
    return DescentTrace(
        rng.normal(size=(K + 1, N, H, D)).astype(np.float32),
        timestep_energies.mean(2),
        timestep_energies,
        rng.random((K, N)).astype(np.float32),
        rng.random((K, N, H)).astype(np.float32),
    )


def valid(figure: dict) -> None:
    """Plotly's own schema accepts it and it survives strict JSON."""
    json.dumps(figure, allow_nan=False)
    go.Figure(figure)


@pytest.mark.parametrize("mode", ["contour", "surface"])
def test_slice_is_valid_and_keeps_orientation(landscape, trace, mode):
    figure = slice_figure(landscape, trace, 1, mode)
    valid(figure)
    z = np.array(figure["data"][0]["z"])
    assert z[-1, 0] == pytest.approx(21) and z[0, -1] == pytest.approx(1)  # rows are v


def test_slice_marks_first_and_refined_action(landscape, trace):
    marks = slice_figure(landscape, trace, 1, "contour")["data"][1:]
    expected = trace.actions[[0, -1], 1, 2][:, [1, 5]]
    np.testing.assert_allclose([[m["x"][0], m["y"][0]] for m in marks], expected, rtol=1e-6)
    assert "refined" in marks[1]["name"]


@pytest.fixture
def expert() -> Reference:
    """An expert inside of the slice, at (0.5, 1)."""
    actions = np.zeros((H, D), np.float32)
    actions[2, [1, 5]] = 0.5, 1.0
    return Reference("expert", actions, 3.25)


@pytest.mark.parametrize("mode", ["contour", "surface"])
def test_the_expert_is_marked_where_it_acts(landscape, trace, expert, mode):
    figure = slice_figure(landscape, trace, 1, mode, expert)
    valid(figure)
    mark = figure["data"][-1]
    assert (mark["name"], set(mark["x"]), set(mark["y"])) == ("expert", {0.5}, {1.0})
    assert "3.25" in mark["hovertemplate"]  # of its whole chunk, not of the slice
    plain = slice_figure(landscape, trace, 1, mode)["data"]
    assert figure["data"][:-1] == plain
    assert mark["marker"]["color"] not in [m["marker"]["color"] for m in plain[1:]]


def test_the_reading_tells_energies_of_whole_chunks_and_what_is_outside(landscape, trace, expert):
    rows = {row["kind"]: row for row in reading(landscape, trace, 1, expert)}
    assert rows["start"]["energy"] == pytest.approx(trace.energies[0, 1])
    assert rows["refined"]["energy"] == pytest.approx(trace.energies[-1, 1])
    assert (rows["expert"]["energy"], rows["expert"]["inside"]) == (3.25, True)
    expert.actions[2, 1] = 7.0
    assert not reading(landscape, trace, 1, expert)[-1]["inside"]
    assert [row["kind"] for row in reading(landscape, trace, 1)] == ["start", "refined"]


def test_the_descent_shows_the_expert_and_its_energy(landscape, trace, expert):
    expert.actions[2, 1] = 7.0
    figure = descent_figure(landscape, trace, 1, expert)
    valid(figure)
    still = [t for t in figure["data"] if "expert" in t.get("name", "")]
    assert still[0]["x"] == [7.0] and figure["layout"]["xaxis"]["range"][1] > 7
    assert still[1]["y"] == [3.25, 3.25] and still[1]["yaxis"] == "y2"
    last = figure["frames"][-1]
    assert [figure["data"][i] for i in last["traces"]] == last["data"]


def test_slice_names_its_axes_and_action(landscape, trace):
    layout = slice_figure(landscape, trace, 0, "contour")["layout"]
    assert ACTION_NAMES[1] in layout["xaxis"]["title"]["text"]
    assert ACTION_NAMES[5] in layout["yaxis"]["title"]["text"]
    assert "action 3 of 4" in layout["title"]["text"]


def test_surface_leaves_out_what_lies_beside_the_slice(landscape, trace):
    far = trace.actions.copy()
    far[0, 0, 2, 1] = 9.0
    far[-1, 0, 2, [1, 5]] = 0.5, 1.0
    shifted = DescentTrace(
        far, trace.energies, trace.timestep_energies, trace.grad_norms, trace.step_sizes
    )
    marks = slice_figure(landscape, shifted, 0, "surface")["data"][1:]
    assert len(marks) == 1 and marks[0]["z"][0] == pytest.approx(10.25, abs=0.01)


def test_unknown_mode_is_refused(landscape):
    with pytest.raises(ValueError, match="contour"):
        slice_figure(landscape, None, 0, "pie")


def test_at_interpolates_and_knows_its_borders(landscape):
    assert at(landscape, 0.2, 1.0) == pytest.approx(10.04, abs=1e-4)
    assert at(landscape, 1.0, 2.0) == pytest.approx(21, abs=1e-4)
    assert np.isnan(at(landscape, 1.01, 1.0))


def test_numbers_round_and_hide_what_json_cannot_say():
    assert style.numbers(np.array([1.23456789, np.nan, np.inf])) == [1.2346, None, None]


def test_descent_has_one_frame_per_energy(landscape, trace):
    figure = descent_figure(landscape, trace, 1)
    valid(figure)
    assert [f["name"] for f in figure["frames"]] == [str(k) for k in range(K + 1)]
    assert all(len(f["data"]) == len(f["traces"]) for f in figure["frames"])


def test_descent_starts_on_its_last_frame(landscape, trace):
    figure = descent_figure(landscape, trace, 1)
    last = figure["frames"][-1]
    assert [figure["data"][i] for i in last["traces"]] == last["data"]


def test_descent_frame_k_shows_the_first_k_updates(landscape, trace):
    k, chain = 2, 1
    frame = descent_figure(landscape, trace, chain)["frames"][k]
    on_energy = next(t for t in frame["data"] if t.get("yaxis") == "y2")
    np.testing.assert_allclose(on_energy["y"], trace.energies[: k + 1, chain], rtol=1e-4)
    on_gradient = next(t for t in frame["data"] if t.get("yaxis") == "y3")
    np.testing.assert_allclose(on_gradient["y"], trace.grad_norms[:k, chain], rtol=1e-4)
    heads = next(t for t in frame["data"] if t["mode"] == "markers")
    np.testing.assert_allclose(
        [heads["x"][-1], heads["y"][-1]], trace.actions[k, chain, 2][[1, 5]], rtol=1e-4
    )
    assert len(heads["x"]) == N


def test_descent_heatmaps_are_actions_by_iterations(landscape, trace):
    maps = [t for t in descent_figure(landscape, trace, 2)["data"] if t["type"] == "heatmap"]
    np.testing.assert_allclose(maps[0]["z"], trace.timestep_energies[:, 2].T, rtol=1e-4)
    np.testing.assert_allclose(maps[1]["z"], trace.step_sizes[:, 2].T, rtol=1e-4)


def test_descent_axes_hold_slice_and_paths(landscape, trace):
    low, high = descent_figure(landscape, trace, 0)["layout"]["xaxis"]["range"]
    path = trace.actions[:, :, 2, 1]
    assert low < min(path.min(), -1) and high > max(path.max(), 1)
