"""Thinning meshes: what must survive it, on shapes small enough to reason about."""

import mujoco
import numpy as np
from scipy.spatial import ConvexHull

from studio.sim import simplify


def test_the_most_central_vertex_stands_for_its_cluster():
    positions = np.array([[0, 0, 0], [1, 0, 0], [3, 0, 0], [9, 9, 9]], dtype=np.float32)
    chosen = simplify.most_central(positions, np.array([0, 0, 0, 1]))
    np.testing.assert_array_equal(chosen, [1, 1, 1, 3])


def test_the_two_sides_of_a_thin_wall_stay_apart():
    """Two triangles one above the other in a single cell, not connected."""
    side = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32)
    positions = np.concatenate([side, side + np.float32(0.1)])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    patches = simplify.patches(_places(positions), faces, np.zeros(6, int))
    assert len(set(patches[:3])) == len(set(patches[3:])) == 1
    assert patches[0] != patches[3]


def test_vertices_at_one_position_stay_together():
    """Triangles that share an edge by position only, as exported meshes do."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    positions = corners[[0, 1, 2, 2, 1, 3]]
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    cells = np.arange(4)[[0, 1, 2, 2, 1, 3]]
    patches = simplify.patches(_places(positions), faces, cells)
    assert patches[1] == patches[4] and patches[2] == patches[3]
    assert len(set(patches)) == 4


def test_a_cut_of_the_texture_is_found():
    """Two triangles over one edge; in `cut`, vertex 1 and 2 have another coordinate in each."""
    places = np.arange(4)
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    whole = np.array([[[0, 0], [1, 0], [0, 1]], [[0, 1], [1, 0], [1, 1]]], dtype=np.float32)
    cut = whole + np.array([0, 5], dtype=np.float32)[:, None, None]
    chart, kind = simplify.charts(places, faces, whole)
    assert chart[0] == chart[1] and len(set(kind)) == 1
    chart, kind = simplify.charts(places, faces, cut)
    assert chart[0] != chart[1]
    assert kind[1] == kind[2] and len(set(kind)) == 3  # the seam, and the two sides of it


def test_a_chart_that_meets_itself_keeps_its_places_apart():
    """A strip of three triangles around a post: its ends meet at vertex 0 with two coordinates."""
    faces = np.array([[0, 1, 2], [2, 1, 3], [3, 1, 0]])
    uv = np.array([[0, 0], [0.5, 1], [1, 0], [2, 0], [3, 0]], dtype=np.float32)
    chart, kind = simplify.charts(np.arange(4), faces, uv[[[0, 1, 2], [2, 1, 3], [3, 1, 4]]])
    assert len(set(chart)) == 1
    assert len(set(kind[1:])) == 1 and kind[0] != kind[1]


def test_a_moved_corner_takes_the_coordinate_of_its_own_chart():
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    coords = np.array([[0, 1, 2], [3, 4, 5]])  # two charts meet along the edge 1-2
    chosen = np.array([[0, 2, 2], [2, 2, 3]])  # vertex 1 became vertex 2
    moved = simplify.moved_coords(np.arange(4), faces, coords, np.array([0, 1]), chosen)
    np.testing.assert_array_equal(moved, [[0, 2, 2], [3, 3, 5]])


def test_only_what_nothing_collides_with_is_thinned():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4000, 3))
    points /= 20 * np.linalg.norm(points, axis=1, keepdims=True)  # a ball of 5 cm
    faces_F3 = ConvexHull(points).simplices
    for collides in (True, False):
        spec = mujoco.MjSpec()
        spec.add_mesh(name="m", uservert=points.ravel(), userface=faces_F3.ravel())
        bits = int(collides)
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH, meshname="m", contype=bits, conaffinity=bits
        )
        model = spec.compile()
        vertices, faces = model.mesh_vert.copy(), int(model.mesh_facenum[0])
        simplify.thin(model)
        np.testing.assert_array_equal(model.mesh_vert, vertices)
        if collides:
            assert model.mesh_facenum[0] == faces
        else:
            kept = model.mesh_face[: model.mesh_facenum[0]]
            assert 500 < len(kept) < 0.8 * faces
            assert (np.diff(np.sort(kept, axis=1), axis=1) > 0).all()  # no degenerate face


def _places(positions: np.ndarray) -> np.ndarray:
    return np.unique(positions, axis=0, return_inverse=True)[1].ravel()
