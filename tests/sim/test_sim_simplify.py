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
    patches = simplify.patches(positions, faces, np.zeros(6, int), np.zeros(6, bool))
    assert len(set(patches[:3])) == len(set(patches[3:])) == 1
    assert patches[0] != patches[3]


def test_vertices_at_one_position_stay_together():
    """Triangles that share an edge by position only, as exported meshes do."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    positions = corners[[0, 1, 2, 2, 1, 3]]
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    cells = np.arange(4)[[0, 1, 2, 2, 1, 3]]
    patches = simplify.patches(positions, faces, cells, np.zeros(6, bool))
    assert patches[1] == patches[4] and patches[2] == patches[3]
    assert len(set(patches)) == 4


def test_a_cut_of_the_texture_is_found_and_kept():
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], dtype=np.float32)
    faces = np.array([[0, 1, 2], [2, 1, 3]])
    texture = np.array([[0, 0], [1, 0], [0, 1], [0.5, 0.5], [1, 1]], dtype=np.float32)
    whole = np.array([[0, 1, 2], [2, 1, 4]])
    cut = np.array([[0, 1, 2], [2, 3, 4]])  # vertex 1 has two coordinates
    assert not simplify.on_seams(positions, faces, whole, texture).any()
    seam = simplify.on_seams(positions, faces, cut, texture)
    np.testing.assert_array_equal(seam, [False, True, False, False])
    patches = simplify.patches(positions, faces, np.zeros(4, int), seam)
    assert patches[0] == patches[2] == patches[3] != patches[1]


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
