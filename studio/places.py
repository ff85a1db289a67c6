"""Where the studio's own files are. Imports nothing but the standard library."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where `python -m models.train` is found
ASSETS = ROOT / "assets"
SHIPPED = ASSETS / "checkpoints"
CHECKPOINT = SHIPPED / "eb-vla-tiny"  # that plans unless another one is chosen


def plotly_script() -> Path:
    """Plotly's JavaScript, which comes with the Python package."""
    return Path(find_spec("plotly").origin).parent / "package_data" / "plotly.min.js"
