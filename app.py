"""EB-VLA Studio: `python app.py`, then open http://localhost:7860.

The composition root: builds the objects that the arguments ask for, launches the page.
"""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace

from studio.arguments import open_policy, parse_args, trusted_hosts
from studio.openpi import API_KEY
from studio.ports import check_port, web_address

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle torch threads leave the cores to scenes


def build(args: Namespace):
    """The FastAPI application with the page mounted on it. Raises ValueError on bad arguments."""
    import gradio as gr
    from huggingface_hub import constants
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from studio import lab_routes, recording_routes
    from studio.events import SceneSpec
    from studio.public import OWNERS, ForVisitors
    from studio.server import create_app
    from studio.serving import PolicyServer, ServerThread
    from studio.session import SessionOptions
    from studio.sim.catalog import check_scene
    from studio.studio import Studio
    from studio.ui import page
    from studio.workshop import Workshop, router
    from studio.workspace import STUDIES

    constants.HF_HUB_OFFLINE = True  # here all is at hand; a training launched here may download
    scene = SceneSpec(args.suite, args.task, args.init)
    check_scene(scene)
    policy = open_policy(args)
    served = None
    if args.serve is not None:
        # On a CPU scenes don't wait for others' plans; a GPU does one thing at a time anyway.
        theirs = policy.beside() if str(policy.device) == "cpu" else policy
        server = PolicyServer(theirs, api_key=os.environ.get(API_KEY))
        served = ServerThread(server, args.host, args.serve)
        print(f"EB-VLA policy: ws://{web_address(args.host, served.port)}", flush=True)
    workshop = Workshop(args.workspace, STUDIES.glob("*/"))
    options = SessionOptions(
        cap=args.sessions, scene=scene, autorun=not args.paused,
        linger_s=args.linger, idle_s=60 * args.idle, recordings=workshop.workspace.recordings,
    )  # fmt: skip
    studio = Studio(policy, options, served)
    application = create_app(studio)
    for routes in (router, lab_routes.router, recording_routes.router):
        application.include_router(routes(workshop, studio))
    if args.public:
        application.add_middleware(ForVisitors)
    application.add_middleware(TrustedHostMiddleware, allowed_hosts=trusted_hosts(args))
    launch = {"root_path": args.root_path, **page.LAUNCH}
    blocks = page.build(studio, OWNERS if args.public else "")
    return gr.mount_gradio_app(application, blocks, path="/", **launch)


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted; exit code 2 when the arguments can't be served."""
    args = parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        check_port(args.host, args.port)
        if args.serve is not None:
            check_port(args.host, args.serve, "--serve")
        application = build(args)
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    import uvicorn

    print(f"EB-VLA Studio: http://{web_address(args.host, args.port)}", flush=True)
    uvicorn.run(
        application,
        host=args.host,
        port=args.port,
        log_level="warning",
        ws_max_size=2**20,
        timeout_keep_alive=75,  # longer than proxies do, so that they never reuse a closed one
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
