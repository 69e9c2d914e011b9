"""The model as ONNX, run by onnxruntime on the CPU (extra `onnx`) after a check that the masks are the same."""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor, nn

from seg_recipe.inference import Segmenter, mask_of
from seg_recipe.inference.exportable import Exportable
from seg_recipe.inference.inputs import Picture
from seg_recipe.runtime.errors import InputError, first_line
from seg_recipe.runtime.files import replaced_file
from seg_recipe.windows import WINDOW_STEP

MOST_DIFFERING = 0.001
"""The share of pixels in which the masks of an export may differ from torch's, on random and on real pictures."""
REAL_PICTURES = 4
_KEY = "seg_recipe"
_OPSET = 18


class _Logits(nn.Module):
    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model(pixel_values=pixel_values).logits


def fingerprint(segmenter: Segmenter) -> str:
    """A hash of the weights, the preprocessing and the classes: what the masks depend on."""
    found = hashlib.sha256(
        json.dumps([segmenter.label_space.to_json(), segmenter.image_size, segmenter.mean, segmenter.std]).encode()
    )
    for name, tensor in sorted(segmenter.model.state_dict().items()):
        found.update(name.encode())
        found.update(
            tensor.cpu().contiguous().view(torch.uint8).numpy().data if tensor.ndim else str(tensor.item()).encode()
        )
    return found.hexdigest()[:16]


def use_onnx(segmenter: Segmenter, path: Path, pictures: Sequence[Picture]) -> None:
    """Has `segmenter` compute its logits with onnxruntime from the file `path`, which is exported and verified first
    where there is none.

    The verification compares masks on random input and on the first REAL_PICTURES of `pictures` that can be read, and
    prints the share of pixels that differ. The file appears only if both are below MOST_DIFFERING. The batch is free,
    and so is the size if the masks are right at another one, too. Raises InputError in one line: onnx or onnxruntime
    not installed, a model that cannot be exported, a difference that is too large, a file of another model.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"--onnx needs {error.name}, which is not installed; install it with: pip install 'seg-recipe[onnx]'"
        ) from None
    if hasattr(segmenter.model, "own_loss"):
        raise InputError(
            "--onnx: an export of Mask2Former keeps the number of pictures that it was made with; leave --onnx out."
        )
    wanted = fingerprint(segmenter)
    if not path.exists():
        with replaced_file(path) as part:
            session, free = _export(segmenter, part, onnx, onnxruntime, wanted)
            print(
                f"exported {path}: "
                + ("batch and size free" if free else "batch free, pictures of the model size only")
            )
            _verify(segmenter, session, pictures, path)
    session = _session(path, onnxruntime)
    found = session.get_modelmeta().custom_metadata_map.get(_KEY)
    if found != wanted:
        raise InputError(
            f"--onnx {path} was not exported from this model (it says {found}, wanted {wanted}); name another file, "
            "or delete it."
        )
    segmenter.network = lambda pixel_values: _run(session, pixel_values)


def _export(segmenter: Segmenter, part: Path, onnx: Any, onnxruntime: Any, wanted: str) -> tuple[Any, bool]:
    """Writes the file and returns its session, and whether the picture's size is free in it."""
    if not part.parent.is_dir():
        raise InputError(f"--onnx {part.with_name(part.name[1:-5])}: there is no folder {part.parent}; make it first.")
    height, width = segmenter.image_size
    example = torch.zeros(2, 3, height, width)
    reasons = []
    for free in (True, False):
        size = {2: "height", 3: "width"} if free else {}
        try:
            with _quiet(), Exportable():
                # The newer exporter needs onnxscript, and fixes sizes that transformers' models reshape by.
                torch.onnx.export(
                    _Logits(segmenter.model).eval(),
                    (example,),
                    part,
                    dynamo=False,
                    opset_version=_OPSET,
                    input_names=["pixel_values"],
                    output_names=["logits"],
                    dynamic_axes={"pixel_values": {0: "batch", **size}, "logits": {0: "batch", **size}},
                )
        except Exception as error:  # each architecture fails in its own way
            reasons.append(first_line(error))
            continue
        model = onnx.load(part)
        onnx.helper.set_model_props(model, {_KEY: wanted})
        onnx.save(model, part)
        session = _session(part, onnxruntime)
        if not free or _takes_another_size(segmenter, session):
            return session, free
    raise InputError(
        f"--onnx: torch cannot export this {segmenter.model.config.model_type} model ({reasons[-1]}); leave --onnx "
        "out."
    )


def _session(path: Path, onnxruntime: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no public base class for its errors
        raise InputError(
            f"--onnx {path} cannot be read by onnxruntime ({' '.join(str(error).split())[:150]}); delete it."
        ) from None


def _run(session: Any, pixel_values: Float32[Tensor, "batch 3 height width"]) -> Float32[Tensor, "batch classes h w"]:
    try:
        return torch.from_numpy(session.run(None, {"pixel_values": pixel_values.numpy()})[0])
    except Exception as error:
        raise InputError(f"onnxruntime: {' '.join(str(error).split())[:150]}") from None


def _takes_another_size(segmenter: Segmenter, session: Any) -> bool:
    """Whether the masks agree at another size. The export silently fixes a size that the model keeps as a number."""
    height, width = (
        max(WINDOW_STEP, round(length * factor / WINDOW_STEP) * WINDOW_STEP)
        for length, factor in zip(segmenter.image_size, (1.5, 0.5), strict=True)
    )
    noise = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    try:
        pixels, differing = _compare(segmenter, session, list(noise))
    except (RuntimeError, ValueError):
        return False
    return differing < MOST_DIFFERING * pixels


def _compare(segmenter: Segmenter, session: Any, inputs: list[Float32[Tensor, "3 _ _"]]) -> tuple[int, int]:
    """How many pixels the masks have, and in how many the session's differ from torch's."""
    pixels = differing = 0
    for pixel_values in inputs:
        size = pixel_values.shape[1], pixel_values.shape[2]
        expected = mask_of(segmenter.logits(pixel_values[None])[0], size)
        found = mask_of(_run(session, pixel_values[None])[0], size)
        pixels, differing = pixels + expected.size, differing + int((np.not_equal(expected, found)).sum())
    return pixels, differing


def _verify(segmenter: Segmenter, session: Any, pictures: Sequence[Picture], path: Path) -> None:
    """Prints how many pixels differ from torch's; raises ValueError where they are too many."""
    noise = torch.randn(2, 3, *segmenter.image_size, generator=torch.Generator().manual_seed(0))
    real = []
    for picture in pictures:
        with contextlib.suppress(Exception):  # it will be named when its turn comes
            real.append(segmenter.prepare(picture.read()))
        if len(real) == REAL_PICTURES:
            break
    for name, inputs in (("random input", list(noise)), (f"{len(real)} pictures", real)):
        if not inputs:
            print("verified without pictures: none of the INPUTs could be read here")
            continue
        pixels, differing = _compare(segmenter, session, inputs)
        print(f"verified on {name}: {differing:,} of {pixels:,} pixels differ from torch ({differing / pixels:.4%})")
        if differing >= MOST_DIFFERING * pixels:
            raise InputError(
                f"--onnx {path}: the export differs from torch in {differing / pixels:.2%} of the pixels of {name}, "
                f"more than {MOST_DIFFERING:.1%}; it was not kept. Leave --onnx out."
            )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks: what it says of tracing is what `_verify` checks.

    Torch prints the whole graph, 700 lines, before it raises. It means to do so on request only, but looks at the
    function that tells whether it was asked to (`_jit_is_onnx_log_enabled`) and does not call it.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), mock.patch.object(torch._C, "_jit_onnx_log", create=True):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
