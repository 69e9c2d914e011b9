"""Scores and masks: equal to the pipeline and to evaluation, mirrored and in windows without a trace, careful about
what is loaded.
"""

import json
import traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import DPTImageProcessorPil, PreTrainedConfig, PreTrainedModel, SegformerImageProcessorPil, pipeline

from seg_recipe import metrics, prediction
from seg_recipe.inference import Segmenter, load_segmenter, mask_of, named_space
from seg_recipe.labels import FACE, LabelSpace
from seg_recipe.runtime.errors import InputError
from seg_recipe.scoring import tally
from seg_recipe.scoring.matching import match_labels
from seg_recipe.transforms import EvalTransform
from tests.tiny import LABELS, scene, segformer
from tests.tiny_checkpoints import write_checkpoint

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
SIZES = [(64, 64), (40, 57), (131, 90), (64, 200)]  # (width, height)


class PatchModel(PreTrainedModel):
    """One convolution of 4x4 patches: logits of a pixel depend on its own patch alone, wherever a window begins."""

    config_class = PreTrainedConfig
    base_model_prefix = "none"

    def __init__(self, config, weight=None, bias=None):
        super().__init__(config)
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(3, len(LABELS), 4, 4)
        if weight is not None:
            torch.nn.init.constant_(self.conv.weight, weight)

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self.conv(pixel_values))


def processor(size=(64, 64)):
    return SegformerImageProcessorPil(
        size={"height": size[0], "width": size[1]}, image_mean=MEAN, image_std=STD, do_reduce_labels=False
    )


def patches(size=(64, 64), **settings) -> Segmenter:
    return Segmenter(PatchModel(PreTrainedConfig(), **settings), processor(size), LABELS, precision="fp32")


def pictures(sizes=SIZES, seed=0) -> list[Image.Image]:
    rng = np.random.default_rng(seed)
    return [Image.fromarray(scene(rng, max(size))[0]).resize(size, Image.Resampling.BICUBIC) for size in sizes]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    model = segformer(seed=5)
    model.decode_head.classifier.weight.data.mul_(300)  # freshly made ones are almost the same for every class
    model.save_pretrained(path)
    processor().save_pretrained(path)
    (path / "labels.json").write_text(json.dumps(LABELS.to_json()))
    return path


def piped(path, images) -> list[np.ndarray]:
    """The masks that pipeline("image-segmentation") shows, as class ids."""
    model = pipeline("image-segmentation", str(path), trust_remote_code=False, device="cpu")
    masks = []
    for image, parts in zip(images, model(images), strict=True):
        mask = np.full((image.height, image.width), 255, np.uint8)
        for part in parts:
            mask[np.asarray(part["mask"]) > 0] = model.model.config.label2id[part["label"]]
        masks.append(mask)
    return masks


def test_a_checkpoint_comes_with_its_label_space_and_preprocessing(checkpoint):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    assert segmenter.label_space == LABELS and segmenter.image_size == (64, 64) and segmenter.precision == "fp32"
    assert segmenter.mean == MEAN and segmenter.std == STD and not segmenter.model.training
    assert segmenter.logits(torch.zeros(2, 3, 64, 64)).shape == (2, 4, 16, 16)


def test_prepare_is_the_transform_of_evaluation(checkpoint):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    transform = EvalTransform(label_space=LABELS, image_size=64, mean=MEAN, std=STD)
    for image in [*pictures(), *(pictures()[2].convert(mode) for mode in ("L", "RGBA", "P", "CMYK", "LA"))]:
        batch = {"id": ["x"], "image": [image], "label": [Image.new("L", image.size)]}
        assert torch.equal(segmenter.prepare(image), transform(batch)["pixel_values"][0])
    with pytest.raises(ValueError, match=r"mode I;16 \(more than 8 bits a channel\); save it as 8-bit RGB"):
        segmenter.prepare(Image.new("I;16", (8, 8)))


def test_masks_are_those_of_the_pipeline(checkpoint):
    images = pictures([*SIZES, (333, 71), (97, 97)])
    masks = load_segmenter(checkpoint, device="cpu", precision="fp32").masks(images)
    for image, mask, expected in zip(images, masks, piped(checkpoint, images), strict=True):
        assert mask.dtype == np.uint8 and mask.shape == (image.height, image.width)
        assert np.array_equal(mask, expected)
    assert len(np.unique(np.concatenate([mask.ravel() for mask in masks]))) > 1, "a constant mask would prove nothing"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dpt", "upernet", "mobilevit"])
def test_other_architectures_and_their_own_processors(tmp_path, kind):
    path = Path(write_checkpoint(tmp_path, kind))
    own = DPTImageProcessorPil(
        size={"height": 64, "width": 64}, keep_aspect_ratio=kind == "upernet", ensure_multiple_of=16, resample=3
    )
    own.save_pretrained(path)
    images = pictures()
    segmenter = load_segmenter(path, device="cpu", precision="fp32")
    for mask, expected in zip(segmenter.masks(images), piped(path, images), strict=True):
        assert np.array_equal(mask, expected)
    if kind == "upernet":
        assert segmenter.prepare(images[0]).shape != segmenter.prepare(images[3]).shape


def test_a_crop_of_the_processor_is_left_out(tmp_path):
    path = write_checkpoint(tmp_path, "segformer")
    content = {
        "image_processor_type": "MobileViTImageProcessorPil",
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 64, "width": 64},
    }
    (Path(path) / "preprocessor_config.json").write_text(
        json.dumps({**content, "do_center_crop": True, "do_flip_channel_order": True})
    )
    segmenter = load_segmenter(path, device="cpu", precision="fp32")
    image = Image.new("RGB", (128, 64), (255, 0, 0))
    prepared = segmenter.prepare(image)
    assert prepared.shape == (3, 64, 128) and prepared.mean((1, 2)).tolist() == [0, 0, 1]
    assert torch.equal(segmenter._prepared_at(image, 2.0)[:, 0, 0], prepared[:, 0, 0])


def test_a_flip_swaps_the_sides_back(checkpoint):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    image = pictures()[0]
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    swapped = [0, 1, 3, 2]
    there, back = segmenter.scores([image, mirrored], flip=True)
    assert torch.allclose(there, back.flip(-1)[swapped], atol=1e-5)
    log = [segmenter.logits(segmenter.prepare(picture)[None])[0].log_softmax(0) for picture in (image, mirrored)]
    assert torch.allclose(there, (log[0] + log[1].flip(-1)[swapped]) / 2, atol=1e-6)
    mask, mirror = segmenter.masks([image, mirrored], flip=True)
    assert (LABELS.mirror_table[mirror[:, ::-1]] == mask).mean() > 0.999
    assert not torch.allclose(there, log[0], atol=1e-3), "a symmetrical model would prove nothing"


def test_scales_are_averaged_on_the_finest_grid(checkpoint):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    image = pictures()[2]
    (found,) = segmenter.scores([image], scales=(0.5, 1, 2))
    assert found.shape == (4, 32, 32)
    parts = []
    for side in (32, 64, 128):
        transform = EvalTransform(label_space=LABELS, image_size=side, mean=MEAN, std=STD)
        pixels = transform({"id": ["x"], "image": [image], "label": [Image.new("L", image.size)]})["pixel_values"][0]
        score = segmenter.logits(pixels[None]).log_softmax(1)
        parts.append(torch.nn.functional.interpolate(score, (32, 32), mode="bilinear"))
    assert torch.allclose(found, torch.cat(parts).mean(0), atol=1e-5)
    for scales in ([], [0.1], [1.0, 9]):
        with pytest.raises(ValueError, match=r"scales is \[.*wanted one or more numbers in 0\.25-4"):
            segmenter.scores([image], scales=scales)


def test_a_scale_that_the_model_cannot_take_is_named():
    segmenter = patches()

    def only_64(model, arguments, inputs):
        if inputs["pixel_values"].shape[2] != 64:
            raise ValueError("Input image size (128*128) doesn't match model (64*64).")

    segmenter.model.register_forward_pre_hook(only_64, with_kwargs=True)
    with pytest.raises(
        ValueError, match=r"scales holds 2, an input that this model cannot take .*\(64\*64\)\)\. Leave that scale out"
    ):
        segmenter.scores(pictures()[:1], scales=(1.0, 2.0))


def test_windows_leave_no_seams():
    image = pictures([(150, 201)])[0]
    (constant,) = patches(weight=0.0).scores([image], window=True)
    expected = patches(weight=0.0).logits(torch.zeros(1, 3, 4, 4)).log_softmax(1)[0]
    assert torch.allclose(constant, expected.expand_as(constant), atol=1e-6)
    segmenter = patches()
    sized = image.resize((160, 224), Image.Resampling.BILINEAR)  # whole windows and steps: nothing is resized
    (found,) = segmenter.scores([sized], window=True)
    (whole,) = patches((224, 160)).scores([sized], flip=False, window=True)
    assert found.shape == whole.shape == (4, 56, 40)
    assert torch.allclose(found, whole, atol=1e-5)
    assert torch.allclose(whole, patches((224, 160)).scores([sized])[0].log_softmax(0), atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (40, 30), (65, 64), (20, 300), (64, 500)])
def test_windows_cover_pictures_of_any_shape(size):
    image = pictures([size])[0]
    (mask,) = patches().masks([image], window=True, flip=True, scales=(1, 1.5))
    assert mask.shape == (image.height, image.width)
    (score,) = patches().scores([image], window=True)
    assert score.isfinite().all()
    if max(size) <= 64:
        assert torch.allclose(score, patches().scores([image])[0].log_softmax(0), atol=1e-6)
    else:
        assert score.shape[1] * score.shape[2] > 16 * 16


def test_a_stride_that_does_not_divide_the_window_is_refused_in_windows(monkeypatch):
    segmenter = patches((63, 63))
    with pytest.raises(
        ValueError, match=r"63 pixels with 15 logits, which cannot be laid side by side; take whole pictures \(leave"
    ):
        segmenter.masks(pictures([(100, 100)]), window=True)


def test_masks_of_given_sizes_and_of_pictures_of_one_shape_in_one_batch(checkpoint):
    segmenter = load_segmenter(checkpoint, device="cpu", precision="fp32")
    images = pictures()
    batches = []
    segmenter.model.register_forward_pre_hook(
        lambda *arguments: batches.append(arguments[2]["pixel_values"].shape[0]), with_kwargs=True
    )
    masks = segmenter.masks(images, [(10, 20)] * 4)
    assert [mask.shape for mask in masks] == [(10, 20)] * 4 and batches == [4]
    score = torch.randn(3, 5, 6)
    expected = torch.nn.functional.interpolate(score[None], (300, 411), mode="bilinear")[0].argmax(0)
    assert (mask_of(score, (300, 411)) == expected.numpy()).mean() > 0.9999
    with pytest.raises(ValueError, match="logits are not all finite"):
        mask_of(torch.full((3, 5, 6), float("nan")), (8, 8))


def scores_of_a_batch():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(4, 6, 7, generator=generator) for _ in range(3)], [(24, 28), (11, 40), (6, 7)]


def reads(function):
    """Tensors that the host reads, as it would from an accelerator, by the name of the call."""
    found = Counter()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("item", "__bool__", "__float__", "__int__", "tolist", "cpu"):
            original = getattr(torch.Tensor, name)

            def read(tensor, *args, name=name, original=original, **options):
                if not traceback.extract_stack()[-2].filename.endswith("upsampling.py"):  # weights, made on the host
                    found[name] += 1
                return original(tensor, *args, **options)

            patch.setattr(torch.Tensor, name, read)
        function()
    return dict(found)


def test_the_masks_of_a_batch_are_read_from_a_device_at_once():
    scores, sizes = scores_of_a_batch()
    found = prediction.masks_from_device(scores, sizes)
    for mask, one, size in zip(found, scores, sizes, strict=True):
        assert np.array_equal(mask, mask_of(one, size)) and mask.shape == size
    assert reads(lambda: prediction.masks_from_device(scores, sizes)) == {"cpu": 1}
    scores[1][0, 2, 3] = torch.nan
    with pytest.raises(InputError, match="The model's logits are not all finite"):
        prediction.masks_from_device(scores, sizes)


def test_score_reads_four_times_for_each_picture(monkeypatch):
    """Whether all is in order, the counts, the mask and the confidences."""
    scores, sizes = scores_of_a_batch()
    match, truth = match_labels(LABELS, LABELS), np.zeros(sizes[0], np.uint8)
    at_once = tally.mask_of
    monkeypatch.setattr(tally, "mask_of", lambda one, size: prediction.masks_from_device([one], [size])[0])
    monkeypatch.setattr(metrics, "loops_for", lambda logits: False)
    monkeypatch.setattr(metrics, "all_finite", lambda logits: logits.isfinite().all())
    monkeypatch.setattr(metrics.torch, "tensor", lambda value, **_: torch.as_tensor(value))

    def scored():
        tally.count_pixels(scores[0], truth, match, len(LABELS))
        return tally.predict_pixels(scores[0], sizes[0], match)[0]

    assert np.array_equal(scored(), at_once(scores[0], sizes[0]))
    on_the_host = 1  # the sizes of the labels
    assert reads(scored) == {"cpu": 3, "tolist": 1 + on_the_host}


def test_masks_of_more_pixels_than_fit_are_read_one_by_one(monkeypatch):
    scores, sizes = scores_of_a_batch()
    there, asked = [one.to("meta") for one in scores], []

    def made(some, sizes):
        asked.append(len(some))
        return [np.zeros(size, np.uint8) for size in sizes]

    monkeypatch.setattr(prediction, "masks_from_device", made)
    list(prediction.masks_of(there, sizes))
    monkeypatch.setattr(prediction, "TOGETHER", 24 * 28)
    list(prediction.masks_of(there, sizes))
    assert asked == [3, 1, 1, 1]


def test_bf16_is_used_where_asked_for(checkpoint):
    exact, rough = (load_segmenter(checkpoint, device="cpu", precision=precision) for precision in ("fp32", "bf16"))
    pixels = torch.randn(1, 3, 64, 64)
    assert rough.logits(pixels).dtype == torch.float32
    assert 0 < (exact.logits(pixels) - rough.logits(pixels)).abs().max() < 0.1


@pytest.mark.slow
def test_names_tell_the_mirror_pairs():
    assert named_space(FACE.names) is FACE
    found = named_space(
        ["skin", "l_eye", "r_eye", "Left-arm", "Right-arm", "left hand", "leftover", "rightful", "lip", "door", "door"]
    )
    assert found.mirror_pairs == ((1, 2), (3, 4)) and found.names[-2:] == ("door (9)", "door (10)")
    with pytest.raises(ValueError, match="2 to 255 names"):
        named_space([str(label) for label in range(300)])


@pytest.mark.slow
def test_a_config_with_names_alone_will_do(tmp_path, checkpoint):
    segformer(seed=5).save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    found = load_segmenter(str(tmp_path), device="cpu", precision="fp32").label_space
    assert found == LabelSpace(names=LABELS.names, mirror_pairs=((2, 3),))
    (tmp_path / "labels.json").write_text(json.dumps({"names": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"has 4 classes, but the labels\.json beside it names 2"):
        load_segmenter(tmp_path, device="cpu")


def refusals(folder: Path):
    """What is wrong with a model folder, and what is said about it."""

    def pickled():
        torch.save(segformer().state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    def code(name):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "auto_map": {"AutoConfig": "own.Config"}}))

    def no_head():
        segformer().segformer.save_pretrained(folder)

    def other_head():
        segformer(classes=3).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(
            json.dumps({**config, "id2label": dict(enumerate("abcd")), "label2id": None})
        )

    return {
        "pickle": (pickled, r"weights as a pickle only.* Convert it where you trust it: .*save_pretrained it anew"),
        "config": (lambda: code("config.json"), r"config\.json of .* asks to run code of its own \(auto_map\)"),
        "processor": (
            lambda: code("preprocessor_config.json"),
            r"preprocessor_config\.json of .* asks to run code of its own",
        ),
        "no processor": (lambda: (folder / "preprocessor_config.json").unlink(), r"has no preprocessor_config\.json"),
        "no weights": (
            lambda: (folder / "model.safetensors").unlink(),
            r"lacks model\.safetensors\. Give a folder with",
        ),
        "no head": (no_head, r"lacks tensors .*decode_head.* and \d+ more\. Fine-tune it first"),
        "other head": (
            other_head,
            r"or has them in another shape: decode_head\.classifier\.bias, decode_head\.classifier\.weight\.",
        ),
        "damaged": (lambda: (folder / "model.safetensors").write_bytes(b"\0" * 99), "safetensors of .* are damaged"),
        "not JSON": (lambda: (folder / "config.json").write_text("{"), r"config\.json is not valid JSON"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("case", refusals(Path()))
def test_what_cannot_be_trusted_or_is_not_whole_is_refused_in_one_line(tmp_path, case):
    segformer(seed=5).save_pretrained(tmp_path)
    processor().save_pretrained(tmp_path)
    spoil, expected = refusals(tmp_path)[case]
    spoil()
    with pytest.raises((ValueError, OSError), match=expected) as caught:
        load_segmenter(tmp_path, device="cpu")
    assert len(str(caught.value).splitlines()) == 1 and "from_scratch" not in str(caught.value)


def test_a_device_or_precision_that_is_not_there_is_refused(checkpoint):
    for device in ("cuda:77", "toaster"):
        with pytest.raises(
            ValueError, match=rf"device is {device}, which PyTorch cannot use here \(.*\)\. Wanted auto, cpu"
        ):
            load_segmenter(checkpoint, device=device)
    with pytest.raises(ValueError, match="fp16, which needs a GPU"):
        load_segmenter(checkpoint, device="cpu", precision="fp16")
    with pytest.raises(ValueError, match="precision is int8; wanted auto, fp32, bf16 or fp16"):
        load_segmenter(checkpoint, device="cpu", precision="int8")
    with pytest.raises(ValueError, match=r"neither a folder nor a Hub id\. Give a folder with config\.json"):
        load_segmenter("no/such/folder", device="cpu")
