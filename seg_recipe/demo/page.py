"""The page: its layout and its events. The models run on one image at a time."""

import random
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from seg_recipe.demo import fragments
from seg_recipe.demo.comparison import Models, Seen, read_upload, segment, segment_face
from seg_recipe.runtime.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"
SESSIONS = 64
"""Visitors whose last picture is kept, some 7 MB each with two models; the oldest is forgotten first."""
_KEPT_SECONDS = 3600


class Choices(NamedTuple):
    """What a visitor chose: opacity in 0-1, and the ids of the classes that are not shown."""

    opacity: float = fragments.OPACITY
    hidden: tuple[int, ...] = ()

    def changed(self, sent: Any) -> "Choices":
        """Apply what the browser sent; other classes keep their state. Raises InputError for what no page sends."""
        try:
            opacity, shown, hidden = (
                float(sent.opacity),
                {int(label) for label in sent.shown},
                {int(label) for label in sent.hidden},
            )
        except (AttributeError, TypeError) as error:
            raise InputError(f"no choice of this page: {error}") from None
        if not 0 <= opacity <= 100 or not all(0 <= label < 256 for label in shown | hidden):
            raise InputError("no choice of this page: out of range")
        return Choices(opacity / 100, tuple(sorted(({*self.hidden} - shown) | hidden)))


def build_page(models: Models) -> gr.Blocks:
    """Build the page for one or two models. A visitor's data are for that visitor only, for an hour at most."""

    one_at_a_time = threading.Lock()

    def see(path: str | None) -> tuple[Seen | None, str]:
        if path is None:
            return None, ""
        with one_at_a_time:
            return _told(lambda: segment(models, read_upload(path)))

    def see_face(seed: float | None, portrait: bool) -> tuple[Seen | None, str, None]:
        def face() -> Seen:
            if seed is None or seed != int(seed):
                raise InputError("The seed is no whole number; wanted one from 0 up.")
            return segment_face(models, int(seed), portrait=portrait)

        with one_at_a_time:
            return *_told(face), None

    def show(seen: Seen | None, choices: Choices) -> tuple[str, str]:
        return fragments.views(models, seen, *choices), fragments.classes(models, seen, *choices)

    def choose(seen: Seen | None, choices: Choices, event: gr.EventData) -> tuple[str, Choices]:
        choices = choices.changed(event)
        return fragments.views(models, seen, *choices), choices

    with gr.Blocks(
        title="Semantic segmentation",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_KEPT_SECONDS // 6, _KEPT_SECONDS),
    ) as page:
        seen = gr.State(None, time_to_live=_KEPT_SECONDS)
        choices = gr.State(Choices())
        gr.HTML(fragments.header(models), elem_id="header", js_on_load=None)
        with gr.Row():
            with gr.Column(scale=3, min_width=260):
                picture = gr.Image(
                    label="Picture", alt_text="The picture as it was sent", elem_id="picture", type="filepath",
                    sources=["upload", "webcam", "clipboard"], webcam_options=gr.WebcamOptions(mirror=False),
                    height=250, buttons=[],
                )  # fmt: skip
                # Gradio would open the file first, whatever it claims to be, and take any path of this machine that a
                # request names.
                picture.preprocess = lambda payload: (
                    None if payload is None else _uploaded(payload.path, picture.GRADIO_CACHE)
                )
                with gr.Group(elem_id="faces"):
                    seed = gr.Number(1, label="Seed of a face to draw", elem_id="seed")
                    portrait = gr.Checkbox(True, label="Near, towards the camera", elem_id="portrait")
                with gr.Row():
                    draw = gr.Button("Draw this face", min_width=110, elem_id="draw")
                    another = gr.Button("Draw another", min_width=110, elem_id="another")
            with gr.Column(scale=7, min_width=340):
                line = gr.HTML("", elem_id="status", js_on_load=None)
                views = gr.HTML(fragments.views(models, None, *Choices()), elem_id="views", js_on_load=None)
            with gr.Column(scale=3, min_width=290):
                classes = gr.HTML(
                    fragments.classes(models, None, *Choices()),
                    elem_id="classes",
                    js_on_load=(TEMPLATES / "choices.js").read_text(encoding="utf-8"),
                )

        # Plain requests: Gradio's queue (6.31) answers through one stream for each visitor, which it closes when
        # nothing is pending, and what is asked for while it closes is never answered. "always_last": what came
        # meanwhile is done next, not dropped.
        plain = {"queue": False, "trigger_mode": "always_last", "api_visibility": "private"}
        works = {"show_progress": "minimal", "show_progress_on": views, **plain}
        quick = {"show_progress": "hidden", **plain}
        face = (see_face, [seed, portrait], [seen, line, picture])
        for asked in (
            picture.input(see, picture, [seen, line], **works),
            gr.on([draw.click, seed.submit], *face, **works),
            another.click(lambda: random.randrange(1, 1_000_000), None, seed, **quick).then(*face, **works),
        ):
            asked.then(show, [seen, choices], [views, classes], **quick)
        classes.input(choose, [seen, choices], [views, choices], **quick)
    page.state_session_capacity = SESSIONS
    return page


def _uploaded(path: str, folder: str) -> str:
    """The path, which must lead into the folder of what visitors sent. Raises InputError otherwise."""
    if not Path(path).resolve().is_relative_to(Path(folder).resolve()):
        raise InputError("only a picture that was sent to this page can be seen on it")
    return path


def _told(work: Any) -> tuple[Seen | None, str]:
    """What `work` gives, with the line that says so, or the line that says why it gives nothing."""
    started = time.perf_counter()
    try:
        seen = work()
    except InputError as error:
        return None, fragments.status(str(error), failed=True)
    height, width = seen.picture.shape[:2]
    return seen, fragments.status(
        f"Done in {time.perf_counter() - started:.1f} s; shown at {width} × {height} pixels."
    )
