"""Hours that PIE-Bench's 700 cases take on one GPU, by method: the table of docs/pie_bench.md.

    python benchmarks/hours.py [NAME …]

Rows through the network are counted, by editing a picture with the small U-Net of the shapes world:
the methods evaluate both networks equally often. See `zerocon/runs/hours.py` for what a row
costs and what a card is assumed to do.
"""

from __future__ import annotations

import argparse

from zerocon.config.settings import compose_settings
from zerocon.core.quiet import quiet, quiet_models
from zerocon.runs.counting import count_each
from zerocon.runs.hours import CARDS, hours, table_line

RUNS: dict[str, list[str]] = {
    "word_swap, ddim": ["method=word_swap"],
    "pnp, ddim": ["+experiment=pnp_pie_bench"],
    "pnp, direct": ["+experiment=pnp_pie_bench_direct"],
    "p2p, ddim": ["+experiment=p2p_pie_bench"],
    "p2p, direct": ["+experiment=p2p_pie_bench", "inversion=direct"],
    "p2p, negative_prompt": ["+experiment=p2p_pie_bench", "inversion=negative_prompt"],
    "p2p, null_text": ["+experiment=p2p_pie_bench", "inversion=null_text"],
    "masactrl, ddim": ["+experiment=masactrl_published"],
    "masactrl, direct": ["+experiment=masactrl_published", "inversion=direct"],
    "pix2pix_zero": ["+experiment=pix2pix_zero_pie_bench"],
    "zerocon": ["method=zerocon"],
    "edit_friendly": ["+experiment=edit_friendly_published"],
    "infedit": ["+experiment=infedit_published"],
    "turbo_edit": ["+experiment=turbo_edit_published"],
    "dds": ["method=dds"],
    "cds": ["method=cds"],
    "sdedit": ["method=sdedit"],
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("names", nargs="*", help=f"default: {', '.join(RUNS)}")
    names = asked.parse_args().names or list(RUNS)
    quiet()
    settings = {name: compose_settings(RUNS[name], worlds="edit") for name in names}
    quiet_models()
    print(f"| method, inversion | rows | {' | '.join(f'hours, {card}' for card in CARDS)} |")
    print(f"| --- | --: |{' --: |' * len(CARDS)}")
    for name, rows in count_each(settings).items():
        print(table_line(name, rows.edit, [hours(rows.edit, 700, card) for card in CARDS]))


if __name__ == "__main__":
    main()
