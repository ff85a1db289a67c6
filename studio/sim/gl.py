"""Choice of the OpenGL back end, made before MuJoCo or robosuite is imported.

robosuite sets `MUJOCO_GL=egl` unless told otherwise, and PyOpenGL cannot change its platform once
imported: so EGL is tried through ctypes first, and OSMesa (software) is the fall-back.
"""

from __future__ import annotations

import ctypes
import os

_PLATFORM_DEVICE = 0x313F  # EGL_PLATFORM_DEVICE_EXT


def choose_backend() -> str:
    """Set and return `MUJOCO_GL`: the user's own choice, else "egl", else "osmesa".

    Raises RuntimeError naming the Debian packages when neither can draw.
    """
    backend = os.environ.get("MUJOCO_GL", "").strip().lower()
    if not backend:
        backend = "egl" if _egl_works() else "osmesa" if _library_loads("libOSMesa.so.8") else ""
    if not backend:
        raise RuntimeError(
            "MuJoCo cannot draw: neither EGL nor OSMesa works here. On Debian or Ubuntu install "
            "'libegl1 libgl1-mesa-dri', or 'libosmesa6'."
        )
    os.environ["MUJOCO_GL"] = backend
    if backend in ("egl", "osmesa"):
        os.environ.setdefault("PYOPENGL_PLATFORM", backend)
    return backend


def context_class(backend: str) -> type:
    """MuJoCo's OpenGL context for `backend`.

    `mujoco.GLContext` was settled when mujoco was imported, perhaps before `MUJOCO_GL` was set.
    """
    if backend == "egl":
        from mujoco.egl import GLContext
    elif backend == "osmesa":
        from mujoco.osmesa import GLContext
    else:
        from mujoco import GLContext
    return GLContext


def _library_loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _egl_works() -> bool:
    """True when some EGL device can be initialised."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    display_of = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not (query and display_of):
        return False
    devices, count = (ctypes.c_void_p * 16)(), ctypes.c_int()
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    if not prototype(query)(16, ctypes.addressof(devices), ctypes.addressof(count)):
        return False
    prototype = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
    get_display = prototype(display_of)
    egl.eglInitialize.argtypes = [ctypes.c_void_p] * 3
    displays = (get_display(_PLATFORM_DEVICE, device, None) for device in devices[: count.value])
    return any(display and egl.eglInitialize(display, None, None) for display in displays)
