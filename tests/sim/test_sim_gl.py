"""The choice of the OpenGL back end, each in a fresh interpreter."""

import os
import subprocess
import sys

PRELUDE = """
import ctypes
real = ctypes.CDLL
def without(*missing):
    def load(name, *a, **k):
        if any(word in str(name) for word in missing):
            raise OSError(name)
        return real(name, *a, **k)
    ctypes.CDLL = load
from studio.sim.gl import choose_backend
"""


def run(code: str, **environment: str) -> str:
    """What `code` prints; its error when it fails."""
    clean = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env=clean | environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr


def test_the_users_choice_stands():
    assert run("print(choose_backend())", MUJOCO_GL="osmesa") == "osmesa"


def test_osmesa_is_the_fall_back():
    code = "real = lambda name: None\nwithout('EGL')\nprint(choose_backend())"
    assert run(code) == "osmesa"


def test_neither_names_the_packages():
    said = run("without('EGL', 'OSMesa')\nchoose_backend()")
    assert "libegl1 libgl1-mesa-dri" in said and "libosmesa6" in said
