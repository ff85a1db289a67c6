"""A disk that fills up during a real collection."""

import subprocess
import sys

from studio import collect
from studio.events import SceneSpec
from studio.sim.libero_sim import LiberoSim
from tests.helpers import ROOT

# no file may grow beyond 2 MB, in the workers neither; an episode takes more
LIMITED = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000));"
    "from studio import collect; sys.exit(collect.main(sys.argv[1:]))"
)


def test_a_full_disk_stops_the_command_with_one_line(tmp_path):
    sim = LiberoSim(pixels="fast")
    sim.load(SceneSpec("libero_object", 9, 0))  # the compiled model is in the cache now
    sim.close()
    argv = ["--tasks", "9", "--per-task", "2", "--workers", "1", "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, *argv], stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    last = ended.stderr.replace("\r", "\n").splitlines()[-1]
    assert ended.returncode == 2
    assert last.startswith("collect: [Errno 27] File too large: ") and "demo_" in last
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [collect.RECIPES]
