"""A policy server: `python -m studio.serve --checkpoint assets/checkpoints/eb-vla-tiny --port 8000`

It speaks openpi's WebSocket protocol, so that openpi's client and its LIBERO example work against
it, and drives a studio elsewhere: `python app.py --policy ws://HOST:8000`.

On connecting the client is sent a map: what is served. Then each request, a binary frame, gets one
reply, which the client waits for before it asks again. Frames hold msgpack (see `studio.openpi` for
arrays). A request is a map of

    observation/image, observation/wrist_image  uint8 [S, S, 3], robosuite's image turned by 180°
    observation/state    8 numbers: end-effector position (m), axis-angle (rad), gripper joints (m)
    prompt               the instruction
    eb_vla               optional: a map that asks for more, see below

and a reply one of

    actions              float32 [H, 7] in the environment's scale, gripper -1 open, +1 close
    server_timing        infer_ms, queue_ms (waiting for others' plans), prev_total_ms
    eb_vla               what the request's eb_vla asked for

A text frame is an error, `Type: message`. After `BadRequest` (mend the request) and `Busy` (try
again later) the connection goes on; after anything else it is closed. The kinds of `eb_vla`:

    kind "plan" (the default)  seed, sampler {steps, step_size, ...}, trace (true: all of it)
         -> chain, initial_energy, final_energy, energy_gap, context_distance, readout [H, 7],
            trace
    kind "explore"    seed, sampler                   -> trace: the descent of a plan alone
    kind "energies"   actions [N, H, 7], normalised   -> energies [N], timestep_energies [N, H]
    kind "slice_2d"   centre [H, 7], timestep, dims, span, grid  -> slice: E over two dimensions

Over HTTP, `GET /healthz` answers OK and `GET /metrics` in Prometheus' text format. With an API key
(`--api-key` or the variable EB_VLA_API_KEY) all but /healthz wants `Authorization: Api-Key KEY`.
SIGTERM and Ctrl-C end the server when what is in flight has been answered.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys

from models.policy import Policy
from studio.arguments import add_checkpoint
from studio.batching import MAX_BATCH
from studio.openpi import API_KEY
from studio.ports import check_port, web_address
from studio.serving import MAX_QUEUE, MAX_UPDATES, PolicyServer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m studio.serve", description="A policy server that speaks openpi's protocol"
    )
    add_checkpoint(parser)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for the whole network")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--api-key", default=os.environ.get(API_KEY), help=f"or ${API_KEY}")
    parser.add_argument(
        "--max-queue", type=int, default=MAX_QUEUE, help="requests waiting; more are refused"
    )
    parser.add_argument("--max-batch", type=int, default=MAX_BATCH, help="plans made together")
    parser.add_argument(
        "--max-updates", type=int, default=MAX_UPDATES, help="MCMC steps times chains of a descent"
    )
    return parser.parse_args(argv)


async def run(server: PolicyServer, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await server.run(
        host,
        port,
        stop,
        lambda port: print(f"EB-VLA policy: ws://{web_address(host, port)}", flush=True),
    )


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; exit code 2 when the arguments can't be served."""
    args = parse_args(argv)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    try:
        check_port(args.host, args.port)
        policy = Policy.from_pretrained(args.checkpoint, args.device, args.precision)
        server = PolicyServer(
            policy, api_key=args.api_key, max_queue=args.max_queue, max_batch=args.max_batch,
            max_updates=args.max_updates,
        )  # fmt: skip
        asyncio.run(run(server, args.host, args.port))
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
