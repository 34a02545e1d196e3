"""The page itself, built with Gradio, and its server."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from yolo.apps.demo import pictures
from yolo.apps.demo.pictures import Row, Views
from yolo.errors import UserError

try:
    import gradio as gr
    from starlette.middleware import Middleware

    from yolo.apps.demo.request_filter import KEEP_SECONDS, RequestFilter
except ImportError:
    raise UserError("the demo page needs Gradio: pip install -e '.[demo,explain]'") from None

TITLE = "Object detection"
LOOPBACK = "127.0.0.1"
_MOST_NAMES = 20

Seen = TypeVar("Seen")

# preprocess=False: the file's path comes as it is, and only `read_picture` opens the file
_ONE_AT_A_TIME: dict[str, Any] = {"preprocess": False, "concurrency_id": "network"}


def build_page(views: Views, examples: Sequence[Path], *, conf: float, iou: float) -> gr.Blocks:
    """Lay out the page: picture files to choose from, and the sliders at `conf` and `iou`."""
    delete_cache = (KEEP_SECONDS // 3, KEEP_SECONDS)
    class_names = views.predictor.class_names
    names = ", ".join(map(html.escape, class_names[:_MOST_NAMES]))
    more = len(class_names) - _MOST_NAMES
    rest = f" and {more} more classes" if more > 0 else ""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=delete_cache) as page:
        gr.Markdown(f"# {TITLE}\nFinds {names}{rest}.")
        with gr.Row():
            with gr.Column():
                picture = gr.Image(
                    label="Picture",
                    sources=["upload", "webcam", "clipboard"],
                    type="filepath",
                    image_mode=None,  # Gradio does not decode it
                    buttons=["fullscreen"],
                    elem_id="picture",
                )
                conf_slider = gr.Slider(0, 1, conf, step=0.01, label="Confidence", elem_id="conf")
                iou_slider = gr.Slider(0, 1, iou, step=0.01, label="IoU", elem_id="iou")
                gr.Examples([[str(path)] for path in examples], picture, cache_examples=False)
                explain = gr.Button("Show what the network looks at", elem_id="explain")
                maps = gr.Gallery(
                    label="EigenCAM",
                    format="jpeg",
                    columns=3,
                    height="auto",
                    object_fit="contain",
                    elem_id="maps",
                )
                show = partial(_shown, views.maps)
                explain.click(show, picture, maps, api_name="explain", **_ONE_AT_A_TIME)
                picture.change(lambda: None, outputs=maps, api_visibility="private", queue=False)
            with gr.Column():
                _add_boxes(views, [picture, conf_slider, iou_slider])
    page.queue(max_size=64)  # requests; one runs at a time, for it uses every core
    _fetch_no_address(page)
    return page


def _add_boxes(views: Views, inputs: list[Any]) -> None:
    """The boxes are found anew for each changed picture or slider."""
    drawn = gr.Image(
        label="Boxes",
        format="jpeg",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="boxes",
    )
    table = gr.Dataframe(
        headers=list(pictures.TABLE_COLUMNS),
        type="array",
        interactive=False,
        label="Detections, in pixels of the picture",
        elem_id="table",
    )
    gr.on(
        [one.change for one in inputs],
        partial(_boxes, views),
        inputs,
        [drawn, table],
        trigger_mode="always_last",
        api_name="detect",
        **_ONE_AT_A_TIME,
    )


@contextmanager
def serving(page: gr.Blocks, *, host: str = LOOPBACK, port: int | None = None) -> Iterator[str]:
    """Serve a page while the block runs, at a free port from 7860 on by default; yields where."""
    hosts = (LOOPBACK, "localhost") if host == LOOPBACK else ()
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])  # see ``own_folder``
    fonts = ("system-ui", "sans-serif")  # of the visitor's system: none is loaded
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            allowed_paths=[],
            show_error=False,
            max_file_size=pictures.LARGEST_UPLOAD_MIB * 2**20,
            theme=gr.themes.Base(font=fonts, font_mono=("ui-monospace", "monospace")),
            app_kwargs={"middleware": [Middleware(RequestFilter, uploads, hosts)]},
        )
    except OSError as error:
        raise UserError(
            f"the page cannot be served at {host}, port {port}: choose another with --port"
        ) from error
    try:
        yield address
    finally:
        page.close(verbose=False)


def _boxes(
    views: Views, picture: dict[str, Any] | None, conf: float, iou: float
) -> tuple[np.ndarray | None, list[Row]]:
    return (None, []) if picture is None else _shown(views.boxes, picture, conf, iou)


def _shown(view: Callable[..., Seen], picture: dict[str, Any] | None, *thresholds: float) -> Seen:
    """A view of Gradio's record of an upload; a `UserError` becomes a message in the page."""
    try:
        if picture is None:
            raise UserError("choose a picture first.")
        if not picture.get("path"):
            raise UserError("the picture did not arrive: upload it as a file.")
        return view(pictures.read_picture(Path(picture["path"])), *thresholds)
    except UserError as error:
        sentence = str(error)[:1].upper() + str(error)[1:]
        raise gr.Error(html.escape(sentence), print_exception=False) from None


def _fetch_no_address(page: gr.Blocks) -> None:
    """Gradio would download the file behind an address that a request names: for no component."""

    async def only_a_file(move: Any, path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("Addresses are not fetched: upload a file.", print_exception=False)
        return await move(path)

    for block in page.blocks.values():
        move = block.async_move_resource_to_block_cache
        setattr(block, "async_move_resource_to_block_cache", partial(only_a_file, move))  # noqa: B010
