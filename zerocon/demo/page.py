"""The page, with Gradio: what is chosen on it, and what becomes of a click."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any, Literal

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from zerocon.core.checks import ConfigError

try:
    import gradio as gr
except ModuleNotFoundError as error:
    if error.name != "gradio":
        raise
    raise ConfigError("the demo needs Gradio: pip install 'zerocon[demo]'") from None

from starlette.middleware import Middleware

from zerocon.backbones.base import BackboneError
from zerocon.core.cases import CaseError, DatasetError
from zerocon.demo.asked import MOST_BYTES, Asked, uploaded
from zerocon.demo.editing import Job, Made, StoppedError, Studio
from zerocon.demo.fields import OWN, Field, fields_of, method_words, typed_overrides
from zerocon.demo.samples import Sample
from zerocon.demo.shown import CSS, figure, figures, message, progress, remark, result
from zerocon.reports.gallery.items import enlarged
from zerocon.runs.progress import Clock

log = logging.getLogger(__name__)

SHOWN = 260  # pixels of the chosen picture
LOOK = 0.2  # seconds between two looks at how far an edit is
NONE = "none"
# Where the page is so narrow that they are below what is chosen.
TO_RESULTS = """() => {
  if (innerWidth < 700) document.getElementById("results").scrollIntoView({behavior: "smooth"});
  return [];
}"""
CODES: tuple[tuple[Literal["shell", "python"], str], ...] = (
    ("shell", "in a terminal"),
    ("python", "in Python"),
)
KEPT = 24 * 3600  # seconds that uploaded files are kept
FEW_STEPS = 15  # to begin with, where a backbone is computed on the processor
# Nothing is fetched from or sent to another host, whatever Gradio's own files ask for.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; frame-src 'none'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
EXPECTED = (ConfigError, CaseError, DatasetError, BackboneError)


@dataclass(frozen=True, eq=False)
class Picked:
    """The picture that is to be edited."""

    file: Path
    shown: str  # its name in commands
    sample: Sample | None = None


@dataclass(eq=False)
class Page:
    """What the functions behind the page share. `methods`: each with its file."""

    studio: Studio
    methods: Mapping[str, Path]
    samples: Sequence[Sample]
    stops: dict[str, Event] = field(default_factory=dict[str, Event])  # by session

    def __post_init__(self) -> None:
        self.fields: Callable[[str], list[Field]] = lru_cache(self._fields)

    def _fields(self, method: str) -> list[Field]:
        return fields_of(self.studio.given, method)

    # What is picked

    def sample(self, number: int) -> list[Any]:
        """The sample's picture, prompts and edited words."""
        return self.of_sample(self.samples[number])

    def of_sample(self, sample: Sample) -> list[Any]:
        case = sample.case
        picked = Picked(sample.file, str(sample.file), sample)
        words = case.blend_words or ("", "")
        return [picked, self.chosen(picked), case.source_prompt, case.target_prompt, *words]

    def upload(self, file: str) -> list[Any]:
        """The uploaded picture, or why it can't be taken; the prompts are another picture's."""
        try:
            uploaded(file)
        except EXPECTED as error:
            return [None, message(str(error)), gr.skip(), gr.skip(), gr.skip(), gr.skip()]
        picked = Picked(Path(file), Path(file).name)
        return [picked, self.chosen(picked), "", "", "", ""]

    def chosen(self, picked: Picked) -> str:
        sample = picked.sample
        picture = uploaded(picked.file) if sample is None else sample.picture
        title = picked.shown if sample is None else sample.case.instruction
        return figures([figure(enlarged(picture, SHOWN), title, "zc-chosen")])

    def caption(self, picked: Picked | None) -> tuple[Any, Any]:
        """(the source prompt, what there is to say)"""
        if picked is None:
            return gr.skip(), message("choose or upload a picture first")
        try:
            return self.studio.caption(picked.file), ""
        except EXPECTED as error:
            return gr.skip(), message(str(error))

    def begins_with(self, field: Field) -> Any:
        """What a field shows first: the default, but few steps where many would take long."""
        many = field.name == "method.steps" and isinstance(field.default, int)
        if many and self.studio.is_slow:
            return min(FEW_STEPS, int(field.default or FEW_STEPS))
        return field.default

    # The edit

    def begin(self, request: gr.Request) -> list[Any]:
        """Not queued, so that an edit that waits for its turn can be stopped, too."""
        self.stops[_session(request)] = Event()
        return [remark("waiting for its turn"), *_buttons(running=True)]

    def stop(self, request: gr.Request) -> None:
        stopping = self.stops.get(_session(request))
        if stopping is not None:
            stopping.set()

    def edit(
        self, sides: Sequence[tuple[str, Sequence[Field]]], session: str, *values: Any
    ) -> Generator[list[Any]]:
        """Yields the page's outputs: how far it is, then the pictures and the commands."""
        stopping = self.stops.setdefault(session, Event())
        said, codes = "", [gr.skip()] * 4
        try:
            asked = self.asked(sides, *values)
            made: list[Made] = []
            for number, one in enumerate(asked, 1):
                of = f"{one.method} ({number} of {len(asked)}): " if len(asked) > 1 else ""
                done = self.studio.begin(job := Job(one, stopping))
                clock = Clock()
                while not done.done():
                    yield [progress(job.far(), clock, of), *codes, *_buttons(running=True)]
                    time.sleep(LOOK)
                made.append(done.result())
            picked: Picked = values[0]
            said, codes = result(made, _truth(picked, asked[0].target)), _codes(asked)
        except StoppedError:
            said = remark("stopped")
        except EXPECTED as error:
            said = message(str(error))
        except Exception as error:
            log.exception("an edit failed")
            said = message(f"{type(error).__name__}: {error}")
        finally:
            stopping.set()  # also when nobody looks any more
            if self.stops.get(session) is stopping:
                del self.stops[session]
        yield [said, *codes, *_buttons(running=False)]

    def asked(self, sides: Sequence[tuple[str, Sequence[Field]]], *values: Any) -> list[Asked]:
        """What is edited: once for each method. `values` are those of `inputs` on the page."""
        picked, source, target, old, new, further, *settings = values
        if picked is None:
            raise ConfigError("choose or upload a picture first")
        if not target.strip():
            raise ConfigError("the target prompt is empty: describe the edited picture")
        typed = typed_overrides(further)
        found: list[Asked] = []
        left = iter(settings)
        for method, fields in sides:
            chosen = [field.override(value) for field, value in zip(fields, left, strict=False)]
            found.append(
                self.studio.asked(
                    picked.file,
                    picked.shown,
                    source=source,
                    target=target,
                    blend=(old, new),
                    method=method,
                    overrides=[*(o for o in chosen if o), *typed],
                )
            )
        return found


def _truth(picked: Picked, target: str) -> Any:
    """The sample's ground truth, as long as its own target prompt is asked for."""
    sample = picked.sample
    return sample.truth if sample and sample.case.target_prompt == target else None


def _codes(asked: Sequence[Asked]) -> list[Any]:
    """The commands and the Python of each edit; the second pair is hidden without an edit."""
    shown = [
        (f"{one.method}, {label}", text)
        for one in asked
        for (_, label), text in zip(CODES, (one.command(), one.python()), strict=True)
    ]
    hidden = [("", "")] * (4 - len(shown))
    return [
        gr.update(label=label, value=text, visible=bool(text)) for label, text in [*shown, *hidden]
    ]


def _buttons(*, running: bool) -> list[Any]:
    return [gr.update(interactive=not running), gr.update(visible=running)]


def _session(request: gr.Request) -> str:
    return str(request.session_hash)


# What it looks like


def built(page: Page) -> gr.Blocks:
    """The page's elements, and which function each calls."""
    with gr.Blocks(
        title="zerocon", analytics_enabled=False, delete_cache=(KEPT // 4, KEPT)
    ) as blocks:
        gr.HTML("<h1>zerocon</h1>")
        edit = gr.Button("Edit", variant="primary", elem_id="edit", render=False)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", visible=False, render=False)
        results = gr.HTML(elem_id="results", render=False)
        codes = [
            gr.Code(
                language=kind,
                label=label,
                interactive=False,
                wrap_lines=True,
                show_line_numbers=False,
                lines=1,
                visible=False,
                buttons=["copy"],
                elem_id=f"{kind}-{side}",
                render=False,
            )
            for side in (1, 2)
            for kind, label in CODES
        ]
        with gr.Row():
            with gr.Column(scale=4, min_width=320):
                picked, inputs = _request(page)
                choices = [*page.methods]
                first = gr.Dropdown(
                    choices, value=page.studio.given.method, label="Method", elem_id="method"
                )
                second = gr.Dropdown(
                    [NONE, *choices], value=NONE, label="Beside it", elem_id="second"
                )
                outputs = [results, *codes, edit, stop]
                _settings(page, first, second, [picked, *inputs], outputs)
                with gr.Row(elem_classes="zc-go"):
                    edit.render()
                    stop.render()
            with gr.Column(scale=6, min_width=320):
                results.render()
                for code in codes:
                    code.render()
        stop.click(page.stop, None, None, queue=False, api_visibility="private")
        blocks.unload(page.stop)
    blocks.queue(default_concurrency_limit=2, api_open=False)
    return blocks


def _request(page: Page) -> tuple[gr.State, list[Any]]:
    """The picture, the prompts, the edited words and further settings."""
    first = page.of_sample(page.samples[0]) if page.samples else [None, "", "", "", "", ""]
    picked = gr.State(first[0])
    if page.samples:
        sample = gr.Dropdown(
            [(s.title, i) for i, s in enumerate(page.samples)],
            value=0,
            label="A picture whose edit is known",
            elem_id="sample",
        )
    upload = gr.UploadButton(
        f"Upload a picture (at most {MOST_BYTES // 2**20} MiB)",
        file_types=["image"],
        size="md",
        elem_id="upload",
    )
    chosen = gr.HTML(first[1], elem_id="chosen")
    source = gr.Textbox(
        first[2], label="Source prompt", info="Describes the picture. Empty: its caption.",
        lines=2, elem_id="source",
    )  # fmt: skip
    caption = gr.Button("Caption the picture", size="md", elem_id="caption")
    target = gr.Textbox(
        first[3], label="Target prompt", info="Describes what it should become.", lines=2,
        elem_id="target",
    )  # fmt: skip
    with gr.Row():
        told = "for blends and masks"
        old = gr.Textbox(
            first[4], label="Edited word", placeholder=told, elem_id="old", min_width=130
        )
        new = gr.Textbox(first[5], label="becomes", placeholder=told, elem_id="new", min_width=130)
    further = gr.Textbox(
        label="Further settings",
        info="As on the command line: loss.cut.tau=0.1 inversion=direct",
        elem_id="further",
        render=False,
    )
    filled = [picked, chosen, source, target, old, new]
    quiet: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    if page.samples:
        sample.input(page.sample, [sample], filled, **quiet)  # pyright: ignore[reportPossiblyUnboundVariable]
    upload.upload(page.upload, [upload], filled, **quiet)
    caption.click(page.caption, [picked], [source, chosen], api_visibility="private")
    return picked, [source, target, old, new, further]


def _settings(
    page: Page, first: gr.Dropdown, second: gr.Dropdown, inputs: list[Any], outputs: list[Any]
) -> None:
    """Each chosen method's settings, made anew when another one is chosen."""
    *_, further = inputs
    results, edit, stop = outputs[0], outputs[-2], outputs[-1]

    @gr.render(inputs=[first, second], queue=False, show_progress="hidden")
    def settings(*methods: str) -> None:
        sides: list[tuple[str, Sequence[Field]]] = []
        components: list[Any] = []
        for number, method in enumerate(methods):
            if method == NONE:
                continue
            try:
                fields = page.fields(method)
            except EXPECTED as error:
                gr.HTML(message(str(error)))
                continue
            with gr.Group():
                gr.HTML(remark(method_words(page.methods[method])), padding=True)
                for first_ones in (True, False):
                    some = [field for field in fields if field.first == first_ones]
                    with nullcontext() if first_ones else gr.Accordion("More settings", open=False):
                        components += _rows(page, some, method, number)
            sides.append((method, fields))

        def edited(request: gr.Request, *values: Any) -> Generator[list[Any]]:
            yield from page.edit(sides, _session(request), *values)

        clicked = edit.click(
            page.begin,
            None,
            [results, edit, stop],
            queue=False,
            api_visibility="private",
            js=TO_RESULTS,
        )
        clicked.then(
            edited, [*inputs, *components], outputs,
            concurrency_limit=1, concurrency_id="edit", show_progress="hidden",
            api_visibility="private",
        )  # fmt: skip

    further.render()


def _rows(page: Page, fields: Sequence[Field], method: str, number: int) -> list[Any]:
    with gr.Row():
        return [_component(f, page.begins_with(f), (method, number, f.name)) for f in fields]


def _component(field: Field, value: Any, key: tuple[str, int, str]) -> Any:
    """A slider for a share, a field for other numbers. The page keeps what has the same key."""
    told: dict[str, Any] = {"label": field.name, "key": key, "min_width": 140}
    told["elem_id"] = f"{field.name}-{key[1] + 1}".replace(".", "-")
    if field.kind == "switch":
        return gr.Checkbox(value, **told)
    if field.kind == "choice":
        choices = [("the method's own" if c == OWN else c, c) for c in field.choices]
        return gr.Dropdown(choices, value=value, **told)
    if field.kind == "number" and (field.low, field.high) == (0, 1):
        return gr.Slider(0, 1, value=value, step=0.01, **told)
    # Out of bounds it is the class that says so, as on the command line.
    usual = f"usual: {field.default}" if value != field.default else ""
    told["info"] = "; ".join(part for part in (field.bounds, usual) if part)
    whole: dict[str, Any] = {"precision": 0} if field.kind == "whole" else {"step": 0.1}
    return gr.Number(value, **whole, **told)


# Where it is served


class SelfContained:
    """Tells browsers to fetch nothing from other hosts."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def told(event: Any) -> None:
            if event["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode())]
                headers.append((b"referrer-policy", b"no-referrer"))
                event = {**event, "headers": [*event["headers"], *headers]}
            await send(event)

        await self.app(scope, receive, told if scope["type"] == "http" else send)


def served(blocks: gr.Blocks, host: str, port: int) -> str:
    """Start to serve the page in threads of its own, and return its address."""
    _check_free(host, port)
    blocks.launch(
        server_name=host,
        server_port=port,
        share=False,
        inbrowser=False,
        quiet=True,
        prevent_thread_lock=True,
        max_file_size=MOST_BYTES,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        app_kwargs={"middleware": [Middleware(SelfContained)], "docs_url": None, "redoc_url": None},
        css=CSS,
    )
    return str(blocks.local_url)


def _check_free(host: str, port: int) -> None:
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"can't listen on {host}, port {port} ({error.strerror or error}); choose others "
                "with --host and --port"
            ) from None
