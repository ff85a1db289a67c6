"""Geometry of the loaded scene, read from MuJoCo's own state: what a privileged expert may ask.

`SceneGeometry` answers where things are (poses, collision points, free height between two places),
`Joint` describes a drawer, door or knob. World frame, metres, radians throughout.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from studio.sim.rotations import rotation_vector

if TYPE_CHECKING:
    import mujoco

LIMIT_MARGIN = 0.35  # rad; the controller stalls at a joint's limit
SPACING = 0.012  # m between the points on a box
SPARE = 0.001  # of a joint (m or rad) beyond the limit of what counts as closed


@dataclass(frozen=True, slots=True)
class Joint:
    """One hinge or slide of a fixture and the body that it moves."""

    qpos: int  # address in MjData.qpos
    body: int
    slides: bool  # a drawer; else it turns
    anchor: np.ndarray  # float64 [3], a point on the axis, world frame
    axis: np.ndarray  # float64 [3], unit, world frame
    open_range: tuple[float, float]
    closed_range: tuple[float, float]
    on_range: tuple[float, float] | None

    @property
    def opening_sign(self) -> float:
        """+1 when the joint's value grows as it opens, else -1."""
        return 1.0 if np.mean(self.open_range) > np.mean(self.closed_range) else -1.0

    def is_closed(self, value: float) -> bool:
        """Whether it is shut at this value, with a little to spare."""
        limit = max(self.opening_sign * end for end in self.closed_range)
        return self.opening_sign * value < limit - SPARE


class SceneGeometry:
    """Queries on the environment's current model and data.

    Bind a new one after every load or reset: a hard reset replaces model and data.
    """

    def __init__(self, env: Any) -> None:
        """env: the inner LIBERO environment (`obj_body_id`, `object_sites_dict`, `sim`, ...)."""
        self.env = env
        self.model = env.sim.model._model
        self.data = env.sim.data._data
        self._robot = env.robots[0]
        self._geoms = self._collision_geoms_of_subtrees()
        self._vertices: dict[int, np.ndarray] = {}
        self._scratch = copy.copy(self.data)  # for postures that are only imagined

    # Robot -------------------------------------------------------------------------------------

    def gripper_pose(self) -> tuple[np.ndarray, np.ndarray]:
        """Position [3] and rotation [3, 3] of the site between the finger tips."""
        site = self._robot.eef_site_id
        return self.data.site_xpos[site].copy(), self.data.site_xmat[site].reshape(3, 3).copy()

    def gripper_width(self) -> float:
        """Distance between the fingers in metres (0.08 when fully open)."""
        return float(
            sum(abs(self.data.qpos[i]) for i in self._robot._ref_gripper_joint_pos_indexes)
        )

    def gripper_touches(self, name: str) -> bool:
        """Whether the gripper is in contact with the named object."""
        return self.env.check_contact(self._robot.gripper, self.env.get_object(name))

    def reachable(self, position: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether the arm can bring its finger site there within its joint limits.

        Damped least squares from the present posture, limits kept by clipping.
        """
        import mujoco

        model, data, site = self.model, self._scratch, self._robot.eef_site_id
        arm, dofs = self._robot._ref_joint_pos_indexes, self._robot._ref_joint_vel_indexes
        low, high = self.model.jnt_range[self._robot._ref_joint_indexes].T
        data.qpos[:] = self.data.qpos
        jacobian = np.zeros((6, model.nv))
        for _ in range(60):
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            now = data.site_xmat[site].reshape(3, 3)
            error = np.append(position - data.site_xpos[site], rotation_vector(rotation @ now.T))
            if np.linalg.norm(error[:3]) < 0.004 and np.linalg.norm(error[3:]) < 0.04:
                return True
            mujoco.mj_jacSite(model, data, jacobian[:3], jacobian[3:], site)
            j = jacobian[:, dofs]
            step = j.T @ np.linalg.solve(j @ j.T + 1e-3 * np.eye(6), error)
            data.qpos[arm] = np.clip(
                data.qpos[arm] + np.clip(step, -0.2, 0.2), low + LIMIT_MARGIN, high - LIMIT_MARGIN
            )
        return False

    # Objects -----------------------------------------------------------------------------------

    def position(self, name: str) -> np.ndarray:
        """World position [3] of the named object's body."""
        return self.data.xpos[self.env.obj_body_id[name]].copy()

    def rotation(self, name: str) -> np.ndarray:
        """World rotation [3, 3] of the named object's body."""
        return self.data.xmat[self.env.obj_body_id[name]].reshape(3, 3).copy()

    def points(self, name: str) -> np.ndarray:
        """Collision points [N, 3] of the named object with all its parts."""
        return self.body_points(self.env.obj_body_id[name])

    def body_points(self, body: int) -> np.ndarray:
        """Collision points [N, 3] of a body and its descendants."""
        clouds = [
            self._local_points(g) @ self.data.geom_xmat[g].reshape(3, 3).T + self.data.geom_xpos[g]
            for g in self._geoms.get(int(body), ())
        ]
        return np.concatenate(clouds) if clouds else np.zeros((0, 3))

    def lowest(self, name: str) -> float:
        """Height of the named object's lowest point."""
        return float(self.points(name)[:, 2].min())

    def obstacles(self, *skip: str) -> np.ndarray:
        """Collision points [N, 3] of every object and fixture except those named."""
        names = (*self.env.objects_dict, *self.env.fixtures_dict)
        clouds = [self.points(n) for n in names if n not in skip and n in self.env.obj_body_id]
        return np.concatenate(clouds) if clouds else np.zeros((0, 3))

    def corridor_height(
        self, start: np.ndarray, end: np.ndarray, radius: float, *skip: str
    ) -> float:
        """Highest obstacle within `radius` of the horizontal segment start-end (-1 if none)."""
        points = self.obstacles(*skip)
        a, b = np.asarray(start)[:2], np.asarray(end)[:2]
        along = b - a
        fraction = np.clip(((points[:, :2] - a) @ along) / max(along @ along, 1e-9), 0, 1)
        distance = np.linalg.norm(points[:, :2] - (a + fraction[:, None] * along), axis=1)
        return float(points[distance < radius, 2].max(initial=-1.0))

    def touching(self, a: str, b: str) -> bool:
        """Whether two named objects are in contact."""
        return self.env.check_contact(self.env.get_object(a), self.env.get_object(b))

    # Sites and joints --------------------------------------------------------------------------

    def is_site(self, name: str) -> bool:
        """Whether the name is a region of the task rather than a body."""
        return name in self.env.object_sites_dict

    def site_position(self, name: str) -> np.ndarray:
        """World position [3] of a region's centre."""
        return self.data.site(name).xpos.copy()

    def site_extent(self, name: str) -> tuple[np.ndarray, float]:
        """A region's shorter horizontal half-axis [2] (as a vector), and its half-height."""
        site = self.data.site(name)
        axes = site.xmat.reshape(3, 3) * self.model.site(name).size  # columns
        vertical = int(np.argmax(np.abs(axes[2])))
        across = [axes[:2, i] for i in range(3) if i != vertical]
        return min(across, key=np.linalg.norm), float(abs(axes[2, vertical]))

    def owner(self, name: str) -> str | None:
        """The object that a region belongs to (itself for an object); None for a table's region."""
        parent = self.env.object_sites_dict[name].parent_name if self.is_site(name) else name
        return parent if parent in self.env.obj_body_id else None

    def joint(self, name: str) -> Joint | None:
        """The joint that opens a region or fixture (or turns it on); None when it has none."""
        import mujoco

        site = self.env.object_sites_dict.get(name)
        owner = self.owner(name)
        names = (site if site is not None else self.env.get_object(name)).joints
        if owner is None or not names:
            return None
        joint = self.model.joint(names[0])
        body = int(self.model.jnt_bodyid[joint.id])
        ranges = self.env.get_object(owner).object_properties["articulation"]
        return Joint(
            qpos=int(self.model.jnt_qposadr[joint.id]),
            body=body,
            slides=self.model.jnt_type[joint.id] == mujoco.mjtJoint.mjJNT_SLIDE,
            anchor=self.data.xanchor[joint.id].copy(),
            axis=self.data.xaxis[joint.id].copy(),
            open_range=_interval(ranges, "default_open_ranges"),
            closed_range=_interval(ranges, "default_close_ranges"),
            on_range=_interval(ranges, "default_turnon_ranges") or None,
        )

    def joint_value(self, joint: Joint) -> float:
        """Current value of a joint (m or rad)."""
        return float(self.data.qpos[joint.qpos])

    # Collision geometry ------------------------------------------------------------------------

    def _collision_geoms_of_subtrees(self) -> dict[int, list[int]]:
        model, geoms = self.model, {}
        for g in range(model.ngeom):
            if not (model.geom_contype[g] | model.geom_conaffinity[g]):
                continue
            body = model.geom_bodyid[g]
            while body:
                geoms.setdefault(int(body), []).append(g)
                body = model.body_parentid[body]
        return geoms

    def _local_points(self, geom: int) -> np.ndarray:
        if geom not in self._vertices:
            self._vertices[geom] = _surface_points(self.model, geom)
        return self._vertices[geom]


def _interval(properties: dict[str, Any], key: str) -> tuple[float, float] | tuple[()]:
    values = properties.get(key) or ()
    return (float(min(values)), float(max(values))) if values else ()


def _surface_points(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Points [N, 3] spanning a geom in its own frame: mesh vertices, or a grid on a primitive."""
    import mujoco  # the OpenGL back end is chosen before MuJoCo is first imported (gl.py)

    kind, size = model.geom_type[geom], model.geom_size[geom]
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        mesh = model.geom_dataid[geom]
        first = model.mesh_vertadr[mesh]
        return model.mesh_vert[first : first + model.mesh_vertnum[mesh]].astype(float)
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return _box_surface(size)
    if kind in (mujoco.mjtGeom.mjGEOM_CYLINDER, mujoco.mjtGeom.mjGEOM_CAPSULE):
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        ring = np.stack([size[0] * np.cos(angles), size[0] * np.sin(angles)], axis=1)
        return np.concatenate(
            [np.column_stack([ring, np.full(len(ring), z * size[1])]) for z in (-1, 0, 1)]
        )
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return _box_surface(np.full(3, size[0]))
    return np.zeros((0, 3))


def _box_surface(half: np.ndarray) -> np.ndarray:
    """Points [N, 3] on a box's faces, at most `SPACING` apart (so that no finger slips between)."""
    axes = [np.linspace(-h, h, int(np.clip(np.ceil(2 * h / SPACING), 1, 40)) + 1) for h in half]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return grid[(np.abs(np.abs(grid) - half) < 1e-9).any(axis=1)]
