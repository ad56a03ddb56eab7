"""Hours that PIE-Bench's 700 cases take on one GPU, by method: the table of docs/pie_bench.md.

    python benchmarks/hours.py [NAME …]

Rows through the network are counted with the settings that each method has on Stable Diffusion 1.5,
by editing a picture with the small U-Net of the shapes world: the methods evaluate both networks
equally often. Null-text and fixed-point inversion stop where the network lets them, so that this
does not tell their rows. See `zerocon/runs/hours.py` for what a row costs and what a card is
assumed to do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from zerocon.config.settings import compose_settings
from zerocon.core.quiet import quiet, quiet_models
from zerocon.runs.hours import CARDS, hours, rows_and_gradients, table_line

RUNS: dict[str, list[str]] = {
    "word_swap, ddim": ["method=word_swap"],
    "word_swap, edit_friendly": ["+experiment=edit_friendly_published"],
    "sdedit": ["method=sdedit"],
    "pnp, ddim": ["method=pnp"],
    "pnp, direct": ["+experiment=pnp_pie_bench_direct"],
    "p2p, ddim": ["+experiment=p2p_pie_bench"],
    "p2p, direct": ["+experiment=p2p_pie_bench", "inversion=direct"],
    "p2p, negative_prompt": ["+experiment=p2p_pie_bench", "inversion=negative_prompt"],
    "p2p, edit_friendly": ["+experiment=p2p_edit_friendly_pie_bench"],
    "masactrl, ddim": ["+experiment=masactrl_published"],
    "masactrl, direct": ["+experiment=masactrl_published", "inversion=direct"],
    "pix2pix_zero, ddim": ["+experiment=pix2pix_zero_pie_bench"],
    "zerocon, ddim": ["method=zerocon"],
    "dds": ["method=dds"],
    "cds": ["method=cds"],
    "h_edit": ["+experiment=h_edit_published"],
    "infedit (15 steps)": ["+experiment=infedit_published"],
    "reconstruct, ddim": ["method=reconstruct"],
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("names", nargs="*", help=f"default: {', '.join(RUNS)}")
    quiet()
    for text in table(asked.parse_args().names or list(RUNS)):
        print(text, flush=True)


def table(names: Sequence[str]) -> Iterator[str]:
    """Its lines, in Markdown, as they are counted."""
    each = " | ".join(f"hours, {card}" for card in CARDS)
    yield f"| method, inversion | rows | with a gradient, at once | GB | {each} |"
    yield f"| --- | --: | --: | --: |{' --: |' * len(CARDS)}"
    yield from map(line, names)


def line(name: str) -> str:
    settings = compose_settings(["backbone=sd15", *RUNS[name]], worlds="any")
    quiet_models()
    rows, gradients = rows_and_gradients(settings)
    return table_line(name, rows, gradients, [hours(rows, 700, card) for card in CARDS])


if __name__ == "__main__":
    main()
