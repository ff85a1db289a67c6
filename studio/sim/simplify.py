"""Making a scene cheap to draw: smaller textures, fewer triangles, no reflections.

LIBERO's scenes hold some 300,000 triangles and textures up to 4096 pixels wide for pictures of
256 pixels. What is drawn is thinned here once per scene, before the compiled model is stored;
nothing that physics reads is touched: meshes of colliding geoms stay as they are, and vertices are
left where they are, only faces are re-knit.

Letters: V vertices, F faces of one mesh.
"""

from __future__ import annotations

import hashlib
import os
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

TEXTURE_SIDE = 512  # pixels
CELLS_ACROSS = 30  # clusters of vertices along the longest side of a mesh
CELL_BOUNDS = (0.0035, 0.012)  # m, side of a cluster
SPARED_FACES = 1000  # meshes up to this size stay as they are


def shrink_textures(xml: str, folder: Path) -> str:
    """`xml` (MJCF) with every large texture file replaced by a small copy kept in `folder`."""
    root = ET.fromstring(xml)
    found = [t for t in root.iterfind("asset/texture[@file]") if t.get("gridsize") is None]
    files = {texture.get("file") for texture in found}
    with ThreadPoolExecutor(os.cpu_count()) as readers:  # OpenCV works outside Python's lock
        copies = dict(zip(files, readers.map(lambda f: _small_copy(f, folder), files), strict=True))
    for texture in found:
        texture.set("file", copies[texture.get("file")])
    return ET.tostring(root, encoding="unicode")


def _small_copy(file: str, folder: Path) -> str:
    """Path of the picture `file` at no more than TEXTURE_SIDE pixels a side."""
    import cv2

    status = os.stat(file)
    stamp = f"{file} {status.st_mtime_ns} {status.st_size} {TEXTURE_SIDE}"
    small = folder / f"{hashlib.sha256(stamp.encode()).hexdigest()[:32]}.png"
    if small.is_file():
        return str(small)
    picture = cv2.imread(file, cv2.IMREAD_COLOR)
    if picture is None or max(picture.shape) <= TEXTURE_SIDE:
        return file
    scale = TEXTURE_SIDE / max(picture.shape)
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = small.with_name(f"{small.stem}.{os.getpid()}.png")
        if not cv2.imwrite(str(temporary), picture):
            temporary.unlink(missing_ok=True)
            return file
        temporary.replace(small)
    except OSError:  # a full or read-only disk costs time, not the scene
        return file
    return str(small)


def thin(model: Any) -> None:
    """Re-knit the visual meshes of a compiled model and switch its reflections off, in place."""
    model.mat_reflectance[:] = 0.0
    textured = _textured_meshes(model)
    large = [mesh for mesh in _visual_meshes(model) if model.mesh_facenum[mesh] > SPARED_FACES]
    with ThreadPoolExecutor(os.cpu_count()) as workers:  # NumPy sorts outside Python's lock
        list(workers.map(lambda mesh: _thin_mesh(model, mesh, mesh in textured), large))


def _visual_meshes(model: Any) -> set[int]:
    """Meshes that no colliding geom uses."""
    import mujoco

    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    collides = (model.geom_contype | model.geom_conaffinity) != 0
    return set(range(model.nmesh)) - set(model.geom_dataid[is_mesh & collides].tolist())


def _textured_meshes(model: Any) -> set[int]:
    has_texture = (model.mat_texid >= 0).any(axis=-1)
    geoms = np.flatnonzero(model.geom_matid >= 0)
    return set(model.geom_dataid[geoms[has_texture[model.geom_matid[geoms]]]].tolist())


def _thin_mesh(model: Any, mesh: int, textured: bool) -> None:
    """Snap the vertices of one mesh to one per cluster and drop the faces that vanish."""
    first, count = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    faces = slice(first, first + count)
    positions_V3 = _part(model.mesh_vert, model.mesh_vertadr[mesh], model.mesh_vertnum[mesh])
    face_F3, normal_F3, coord_F3 = (
        array[faces].copy()
        for array in (model.mesh_face, model.mesh_facenormal, model.mesh_facetexcoord)
    )
    cell = float(np.clip(np.ptp(positions_V3, axis=0).max() / CELLS_ACROSS, *CELL_BOUNDS))
    cell_V = _numbered(np.floor(positions_V3 / cell).astype(np.int32))
    place_V = _numbered(positions_V3)
    chart_F = None
    if textured and model.mesh_texcoordadr[mesh] >= 0:
        coords = model.mesh_texcoordadr[mesh], model.mesh_texcoordnum[mesh]
        chart_F, kind_V = charts(place_V, face_F3, _part(model.mesh_texcoord, *coords)[coord_F3])
        cell_V = _numbered(np.column_stack([cell_V, kind_V]))
    cluster_V = patches(place_V, face_F3, cell_V)
    chosen_F3 = most_central(positions_V3, cluster_V)[face_F3]
    if chart_F is not None:
        coord_F3 = moved_coords(place_V, face_F3, coord_F3, chart_F, chosen_F3)
    a, b, c = chosen_F3.T
    kept = np.flatnonzero((a != b) & (b != c) & (c != a))
    for array, values in (
        (model.mesh_face, chosen_F3),
        (model.mesh_facenormal, normal_F3),
        (model.mesh_facetexcoord, coord_F3),
    ):
        array[first : first + len(kept)] = values[kept]
        array[first + len(kept) : first + count] = 0
    model.mesh_facenum[mesh] = len(kept)


def _part(array: np.ndarray, start: int, count: int) -> np.ndarray:
    return array[start : start + count]


def charts(
    place_V: np.ndarray, face_F3: np.ndarray, uv_F32: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """How the texture is cut: (chart [F] of each face, kind [V] of each vertex).

    Faces that share a place at one texture coordinate are of one chart. Vertices are of one kind
    where the same charts meet, so that a seam may be thinned along its length but never crossed.
    Where a chart meets itself, each place is of a kind of its own.
    """
    place_F3 = place_V[face_F3]
    node_F3 = _numbered(np.column_stack([place_F3.ravel(), uv_F32.reshape(-1, 2)]))
    node_F3 = node_F3.reshape(face_F3.shape)  # numbers of the (place, coordinate) pairs, N of them
    links = np.concatenate([node_F3[:, :2], node_F3[:, 1:]])
    chart_N = _connected(links, int(node_F3.max()) + 1)
    place_N = np.zeros_like(chart_N, dtype=np.int64)
    place_N[node_F3] = place_F3
    size = int(chart_N.max()) + 1
    pairs, counts = np.unique(place_N * size + chart_N, return_counts=True)
    place, chart = pairs // size, pairs % size
    # The sum of one random number per chart tells the sets of charts apart.
    tags = np.random.default_rng(0).integers(1 << 40, size=size)
    kind = np.zeros(place_V.max() + 1, dtype=np.int64)
    np.add.at(kind, place, tags[chart])
    kind[place[counts > 1]] = -1 - place[counts > 1]
    chart_F = chart_N[node_F3[:, 0]]
    return chart_F, kind[place_V]


def moved_coords(
    place_V: np.ndarray,
    face_F3: np.ndarray,
    coord_F3: np.ndarray,
    chart_F: np.ndarray,
    chosen_F3: np.ndarray,
) -> np.ndarray:
    """Texture coordinate [F, 3] of each corner once its vertex has become `chosen_F3`."""
    size = int(chart_F.max()) + 1
    at_F3 = place_V[face_F3] * size + chart_F[:, None]
    keys, first = np.unique(at_F3, return_index=True)
    wanted_F3 = place_V[chosen_F3] * size + chart_F[:, None]
    found_F3 = coord_F3.ravel()[first[np.searchsorted(keys, wanted_F3)]]
    return np.where(wanted_F3 == at_F3, coord_F3, found_F3)


def patches(place_V: np.ndarray, face_F3: np.ndarray, cell_V: np.ndarray) -> np.ndarray:
    """Cluster [V] of each vertex: those of one cell which edges within it connect.

    So the two sides of a thin wall stay apart. Vertices at one place are one: no cracks open.
    """
    edges = np.concatenate([face_F3[:, [0, 1]], face_F3[:, [1, 2]], face_F3[:, [2, 0]]])
    inside = edges[cell_V[edges[:, 0]] == cell_V[edges[:, 1]]]
    return _connected(place_V[inside], int(place_V.max()) + 1)[place_V]


def most_central(positions_V3: np.ndarray, cluster_V: np.ndarray) -> np.ndarray:
    """For each vertex, the vertex [V] of its cluster that lies nearest to the cluster's mean."""
    sums = np.stack([np.bincount(cluster_V, axis) for axis in positions_V3.T], axis=1)
    means = sums / np.bincount(cluster_V)[:, None]
    distance_V = np.linalg.norm(positions_V3 - means[cluster_V], axis=1)
    order = np.lexsort((distance_V, cluster_V))
    _, firsts = np.unique(cluster_V[order], return_index=True)
    return order[firsts][cluster_V]


def _connected(links: np.ndarray, size: int) -> np.ndarray:
    """Number [size] of the connected component of each node; links: [N, 2] node numbers."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), dtype=bool), links.T), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def _numbered(rows: np.ndarray) -> np.ndarray:
    """A number per row [V, n]; equal rows get the same.

    Rows are told apart by a random linear hash of 64 bits: sorting one number per row is several
    times faster than sorting rows.
    """
    bits = (rows.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 and 0.0 are equal
    bits ^= bits >> 32  # a product keeps what its low bits say
    odd = np.random.default_rng(0).integers(1 << 63, size=rows.shape[1], dtype=np.uint64) * 2 + 1
    return np.unique((bits * odd).sum(1, dtype=np.uint64), return_inverse=True)[1]
