"""One control step of a robosuite environment, without what nobody looks at."""

from __future__ import annotations

from typing import Any

import numpy as np


def control_step(env: Any, action: np.ndarray) -> None:
    """`env.step(action)` of a one-armed `env` without observations, reward and clock.

    qpos comes out bit for bit alike.

    Stock: `forward`, controller (which calls `forward` again), `mj_step`, 25 times. The three
    passes share positions and velocities, so these are computed once (`mj_step1`). The constraint
    solver runs each time, since each pass starts warm from the one before.
    """
    import mujoco

    sim, skip = env.sim, mujoco.mjtStage.mjSTAGE_VEL.value
    model, data = sim.model._model, sim.data._data
    [robot] = env.robots  # asked directly: on its way `env` asks for its limits again and again
    sim.forward = lambda: mujoco.mj_forwardSkip(model, data, skip, 1)
    try:
        for substep in range(int(env.control_timestep / env.model_timestep)):
            mujoco.mj_step1(model, data)
            sim.forward()
            robot.control(action, policy_step=substep == 0)
            mujoco.mj_step2(model, data)
    finally:
        del sim.forward
    env._post_process()
