"""`zerocon demo`: edit pictures on a page in the browser."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from zerocon.commands.options import add_composing, add_verbose

HOST, PORT = "127.0.0.1", 7860
DAY = 24 * 3600.0


def add(commands: Any) -> None:
    demo = commands.add_parser("demo", help="edit pictures on a page in the browser")
    demo.add_argument(
        "--host", default=HOST,
        help="address to listen on (default: %(default)s, for this computer only)",
    )  # fmt: skip
    demo.add_argument("--port", type=int, default=PORT, help="port (default: %(default)s)")
    demo.add_argument(
        "overrides", nargs="*", help="for every edit, such as backbone=sd15 backbone.path=sd15"
    )
    add_composing(demo)
    add_verbose(demo)
    demo.set_defaults(handler=_demo)


def _demo(options: argparse.Namespace) -> None:
    from zerocon.core.checks import in_range
    from zerocon.core.size import Size

    in_range("--port", options.port, 1, 65535)
    from zerocon.runs.progress import loading

    loading("demo")
    from zerocon.demo.editing import Studio
    from zerocon.demo.fields import Given, method_files
    from zerocon.demo.page import Page, built, served
    from zerocon.demo.samples import samples

    studio = Studio(Given.read(options.overrides), options.plugins)
    known = samples(Size.square(64)) if studio.world == "shapes" else []
    page = Page(studio, method_files(options.config_dirs), known)
    page.fields(studio.given.method)  # composed while the model loads, not while someone waits
    blocks = built(page)
    address = served(blocks, options.host, options.port)
    try:
        print(f"zerocon demo: {address} (Ctrl-C ends it)", flush=True)
        if options.host not in (HOST, "localhost", "::1"):
            print("Everyone who reaches this address can use it.", file=sys.stderr)
        studio.backbone()  # a model that can't be loaded ends the command, with its message
        while True:
            time.sleep(DAY)
    except KeyboardInterrupt:
        print()
    finally:
        blocks.close()
        studio.close()
