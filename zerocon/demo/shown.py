"""What the page shows of edits, as HTML that needs nothing from another host."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from zerocon.demo.editing import Made
from zerocon.reports.drawing import plain_axes, style, svg
from zerocon.reports.gallery.items import is_small
from zerocon.runs.progress import Clock, Far, amount
from zerocon.trackers.base import MAP

CURVE = (3.0, 1.9)  # inches of one loss's plot
LOSSES = {"xa": "cross-attention guidance", "cut": "patch-wise contrastive loss"}


def escaped(text: str) -> str:
    """As HTML, also where the page fills templates: they begin with $ or {."""
    return html.escape(text).replace("$", "&#36;").replace("{", "&#123;")


def message(text: str) -> str:
    return f'<p class="zc-error" role="alert">{escaped(text)}</p>'


def remark(text: str) -> str:
    return f'<p class="zc-note" role="status">{escaped(text)}</p>'


def progress(far: Far, clock: Clock, words: str = "") -> str:
    """A bar; without an end while nothing has been counted."""
    parts = [f"{words}{far.said}", amount(far), clock.words(far)]
    said = "; ".join(part for part in parts if part)
    share = f'value="{far.done:.0f}" max="{far.total:.0f}"' if far.total else ""
    return f'<p class="zc-note" role="status">{escaped(said)}</p><progress {share}></progress>'


def figure(picture: Image.Image, caption: str, kind: str = "") -> str:
    sharp = " zc-sharp" if is_small(picture) else ""
    said = escaped(caption)
    return (
        f'<figure class="{kind}"><img class="zc-picture{sharp}" src="{_png(picture)}" '
        f'alt="{said}"><figcaption>{said}</figcaption></figure>'
    )


def _png(picture: Image.Image) -> str:
    """Every pixel as it is."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def figures(pictures: Sequence[str], kind: str = "") -> str:
    return f'<div class="zc-figures {kind}">{"".join(pictures)}</div>'


def result(made: Sequence[Made], truth: Image.Image | None = None) -> str:
    """All edits beside their source, then what each shows of itself."""
    first = made[0]
    pictures = [figure(first.source, "source")]
    if truth is not None:
        pictures.append(figure(truth, "ground truth"))
    pictures += [figure(one.picture, one.asked.method, "zc-edited") for one in made]
    said = dict.fromkeys(note for one in made for note in one.notes)
    notes = [] if truth is not None else [remark(f"{note}.") for note in said]
    return "".join([figures(pictures), *notes, *(_details(one) for one in made)])


def _details(made: Made) -> str:
    caption = "" if made.asked.source else f"; source prompt: {made.source_prompt}"
    took = f"<small>{made.seconds:.1f} s{escaped(caption)}</small>"
    parts = [f"<h3>{escaped(made.asked.method)} {took}</h3>"]
    for which, prompt in (("source", made.source_prompt), ("edited", made.asked.target)):
        maps = _maps(made.maps, which)
        if maps:
            said = f"where the {which} picture attends to the words of “{prompt}”"
            parts += [f"<h4>{escaped(said)}</h4>", figures(maps, "zc-maps")]
    if made.similarity is not None:
        low = min(float(made.similarity.min()), 1 - 1e-6)
        said = (
            "how similar the edit's patches are to the source's for the contrastive loss: "
            f"black {low:.2f}, white 1"
        )
        share = (made.similarity - low) / (1 - low)
        gray = Image.fromarray((255 * share).round().clip(0, 255).astype(np.uint8))
        parts += [f"<h4>{said}</h4>", figures([figure(gray, "similarity")], "zc-maps")]
    if made.curves:
        parts += ["<h4>losses over the steps</h4>", curves(made.curves)]
    return f'<section class="zc-details">{"".join(parts)}</section>'


def _maps(maps: Mapping[str, Image.Image], which: str) -> list[str]:
    start = f"{MAP}{which}: "
    return [
        figure(m, name.removeprefix(start)) for name, m in maps.items() if name.startswith(start)
    ]


def curves(losses: Mapping[str, Sequence[float]]) -> str:
    """One plot a loss, as their sizes differ."""
    return figures([_curve(i, name, values) for i, (name, values) in enumerate(losses.items())])


def _curve(number: int, name: str, values: Sequence[float]) -> str:
    drawn = Figure(figsize=CURVE, layout="constrained")
    axes = plain_axes(drawn)
    axes.plot(range(1, len(values) + 1), values, color=style(number).color)
    axes.set_xlabel("step")
    coded = base64.b64encode(svg(drawn)).decode()
    said = escaped(f"{name}: {LOSSES[name]}" if name in LOSSES else name)
    return (
        f'<figure class="zc-curve"><img src="data:image/svg+xml;base64,{coded}" alt="{said}">'
        f"<figcaption>{said}</figcaption></figure>"
    )


CSS = """
.zc-figures {
  display: grid; gap: 10px;
  grid-template-columns: repeat(auto-fill, minmax(min(150px, 46%), 1fr));
}
.zc-maps { grid-template-columns: repeat(auto-fill, minmax(76px, 1fr)); gap: 6px; }
.zc-maps { max-width: 640px; }
.zc-figures figure { margin: 0; }
.zc-figures img { width: 100%; height: auto; display: block; border-radius: 4px; }
.zc-sharp { image-rendering: pixelated; }
.zc-figures figcaption { font-size: .85em; overflow-wrap: anywhere; text-align: center; }
.zc-curve img { background: white; }
.zc-details { border-top: 1px solid var(--border-color-primary); margin-top: 14px; }
.zc-details h3 { margin: 10px 0 0; }
.zc-details h3 small { font-weight: normal; }
.zc-details h4 { margin: 12px 0 4px; font-weight: normal; font-size: .9em; }
.zc-details h4 { overflow-wrap: anywhere; }
.zc-error { color: #b91c1c; font-weight: 600; overflow-wrap: anywhere; white-space: pre-wrap; }
.dark .zc-error { color: #fca5a5; }
.zc-note { margin: 6px 0; overflow-wrap: anywhere; }
.zc-chosen { max-width: 260px; }
.zc-go { position: sticky; bottom: 0; z-index: 5; padding: 8px 0; }
.zc-go { background: var(--body-background-fill); }
.gradio-container { overflow: clip !important; }
@media (max-width: 700px) { #results { min-height: 90vh; scroll-margin-top: 8px; } }
progress { width: 100%; }
footer { display: none !important; }
"""
