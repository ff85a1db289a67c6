"""EB-VLA Studio: `python app.py`, then open http://localhost:7860.

The composition root: parses the arguments, builds the objects, launches the page.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from studio.ports import check_port

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything that runs is installed already
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle torch threads leave the cores to scenes

ASSETS = Path(__file__).parent / "assets"
CHECKPOINT = ASSETS / "checkpoints" / "eb-vla-tiny"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="EB-VLA Studio")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT, help="checkpoint folder")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"))
    port = int(os.environ.get("GRADIO_SERVER_PORT", "7860"))
    parser.add_argument("--port", type=int, default=port)
    root = os.environ.get("GRADIO_ROOT_PATH")
    parser.add_argument("--root-path", default=root, help="where a proxy serves it, e.g. /studio")
    parser.add_argument("--workspace", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--sessions", type=int, default=4, help="simulators at the same time")
    parser.add_argument("--idle", type=float, default=30, help="minutes until an unused page rests")
    parser.add_argument("--linger", type=float, default=60, help="seconds a closed page is kept")
    parser.add_argument("--paused", action="store_true", help="new pages wait for Run")
    parser.add_argument("--suite", default="libero_object", help="suite shown first")
    parser.add_argument("--task", type=int, default=0, help="task shown first")
    parser.add_argument("--init", type=int, default=40, help="initial state shown first")
    return parser.parse_args(argv)


def build(args: argparse.Namespace):
    """The FastAPI application with the page mounted on it. Raises ValueError on bad arguments."""
    import gradio as gr

    from models.policy import EnergyPolicy
    from studio.events import SceneSpec
    from studio.server import create_app
    from studio.studio import Studio, check_scene
    from studio.ui import page
    from studio.workshop import Workshop, router

    scene = SceneSpec(args.suite, args.task, args.init)
    check_scene(scene)
    policy = EnergyPolicy.from_pretrained(args.checkpoint, device=args.device)
    studio = Studio(
        policy,
        cap=args.sessions,
        scene=scene,
        autorun=not args.paused,
        linger_s=args.linger,
        idle_s=60 * args.idle,
    )
    application = create_app(studio)
    application.include_router(router(Workshop(args.workspace), studio))
    blocks = page.build(studio)
    return gr.mount_gradio_app(
        application, blocks, path="/", root_path=args.root_path, **page.LAUNCH
    )


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; exit code 2 when the arguments can't be served."""
    args = parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        check_port(args.host, args.port)
        application = build(args)
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    import uvicorn

    print(f"EB-VLA Studio: http://{args.host}:{args.port}", flush=True)
    uvicorn.run(application, host=args.host, port=args.port, log_level="warning", ws_max_size=2**20)
    return 0


if __name__ == "__main__":
    sys.exit(main())
