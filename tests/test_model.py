"""The model: every architecture, which parameters learn how, the picture's size, the processor and the pipeline."""

from functools import partial

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    MobileViTImageProcessorPil,
    SegformerImageProcessorPil,
    pipeline,
)

from seg_recipe.labels import LabelSpace
from seg_recipe.models import parameter_groups
from seg_recipe.models.layers import backbone_prefix
from tests.tiny_checkpoints import KINDS, LABELS, WITH_AUXILIARY_HEAD, build, tiny_config, write_checkpoint


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path, monkeypatch):
    """Another cache of the Hub than the user's (its place was read at the import, before any variable of a test)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def checkpoint(tmp_path):
    return partial(write_checkpoint, tmp_path)


# Every architecture


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_builds_from_a_checkpoint_with_only_the_classifier_new(kind, checkpoint):
    folder = checkpoint(kind)
    model, _, notes = build(folder)
    assert model(torch.zeros(1, 3, 64, 64)).logits.shape[1] == 3
    assert model.config.id2label == {0: "background", 1: "leaf", 2: "stem"}
    assert getattr(model.config, "semantic_loss_ignore_index", 255) == 255
    stored, tensors = load_file(f"{folder}/model.safetensors"), model.state_dict()
    # the tensors of a checkpoint may have older names than the model's, so its values are looked for under any name
    values = {(tuple(tensor.shape), tensor.double().sum().item()) for tensor in stored.values()}
    new = [
        name for name, tensor in tensors.items() if (tuple(tensor.shape), tensor.double().sum().item()) not in values
    ]
    assert 1 <= len(new) <= 2  # weight and bias of the last layer (an all-zero bias may be found among others)
    assert not any(name.startswith(backbone_prefix(model)) for name in new)
    assert notes[0].startswith(
        f"{folder}: {len(tensors) - 2} of {len(tensors)} tensors are the checkpoint's; new are 2 of the head"
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_channels_last_changes_the_layout_and_no_result(kind, checkpoint):
    folder = checkpoint(kind)
    plain, other = (build(folder, channels_last=flag)[0] for flag in (False, True))
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(other(pixels).logits, plain(pixels).logits, rtol=1e-4, atol=1e-5)
    weights = [weight for weight in other.state_dict().values() if weight.ndim == 4]
    assert any(not weight.is_contiguous() for weight in weights)
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    other.load_state_dict(plain.state_dict())  # as a resume does
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last)
        for weight in other.state_dict().values()
        if weight.ndim == 4
    )


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_saved_model_comes_back_whole(kind, checkpoint, tmp_path):
    model, _, _ = build(checkpoint(kind), from_scratch=True)
    model.save_pretrained(tmp_path / "saved")
    again, report = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    ours, theirs = model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.config.id2label == LABELS.id2label


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_trained_parameter_takes_part_and_stands_in_one_group(kind, checkpoint):
    model, _, notes = build(checkpoint(kind))
    assert ("auxiliary head" in " ".join(notes)) == (kind in WITH_AUXILIARY_HEAD)
    assert not any("auxiliary_head" in name for name, _ in model.named_parameters())
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    without_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without_gradient == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}

    groups = parameter_groups(model, learning_rate=1e-3, head_learning_rate_factor=10.0, weight_decay=0.1)
    assert [group["name"] for group in groups] == ["backbone", "backbone_no_decay", "head", "head_no_decay"]
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 1e-2, 1e-2]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1, 0.0]
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert name.startswith(backbone_prefix(model)) == group["name"].startswith("backbone")
            if group["name"].endswith("no_decay"):
                assert parameter.ndim == 1 or any(word in name for word in ("token", "position"))
            else:
                assert name.endswith("weight")
                assert "norm" not in name
                assert parameter.ndim > 1
    torch.optim.AdamW(groups).step()


@pytest.mark.parametrize("kind", WITH_AUXILIARY_HEAD)
def test_stock_model_has_parameters_without_a_gradient(kind):
    """Why the auxiliary head goes: with the stock model, DistributedDataParallel waits for gradients that
    never come.
    """
    model = AutoModelForSemanticSegmentation.from_config(tiny_config(kind)).eval()
    model(torch.randn(2, 3, 64, 64)).logits.sum().backward()
    assert any(
        name.startswith("auxiliary_head") for name, parameter in model.named_parameters() if parameter.grad is None
    )


@pytest.mark.slow
def test_stock_resume_restores_8_of_124_tensors(checkpoint, tmp_path):
    """The stock Trainer loads a checkpoint with load_state_dict(strict=False), whose file has other names than the
    model (#43701).
    """
    model, _, _ = build(checkpoint("segformer"))
    model.save_pretrained(tmp_path / "saved")
    stored = load_file(tmp_path / "saved" / "model.safetensors")
    other, _, _ = build(checkpoint("segformer"), from_scratch=True)
    restored = len(other.state_dict()) - len(other.load_state_dict(stored, strict=False).missing_keys)
    assert (restored, len(other.state_dict())) == (8, 124)
    again, _, notes = build(str(tmp_path / "saved"))
    assert "124 of 124 tensors are the checkpoint's; none is new" in notes[0]
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())


# The picture's size, the processor and the pipeline


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "size", "text"),
    [
        ("segformer", 102, "answers with 26x26 logits, which do not divide it evenly. Try --image_size 96"),
        ("segformer", 16, "cannot take .*Try --image_size 64"),
        ("mobilenet_v2", 48, "do not divide it evenly. Try --image_size 64"),
        (
            "beit",
            100,
            "cuts pictures into patches of 16x16 and would drop the rest. Wanted a multiple of 16, such as 96",
        ),
        (
            "data2vec-vision",
            96,
            "cannot take .*It was trained at --image_size 64; from scratch .--from_scratch true. it takes others",
        ),
    ],
)
def test_image_size_that_does_not_fit_is_refused(kind, size, text, checkpoint):
    with pytest.raises(ValueError, match=f"image_size is {size}.*{text}"):
        build(checkpoint(kind), image_size=size)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_from_scratch_takes_another_image_size(kind, checkpoint):
    model, _, notes = build(checkpoint(kind), from_scratch=True, image_size=96)
    assert model(torch.zeros(1, 3, 96, 96)).logits.shape[1] == 3
    assert "nothing is pretrained" in notes[0]


@pytest.mark.slow
def test_pipeline_on_the_saved_folder_does_what_evaluation_does(checkpoint, tmp_path):
    model, processor, _ = build(checkpoint())
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (50, 90, 3), dtype=np.uint8))
    found = pipeline("image-segmentation", model=str(tmp_path / "saved"))(picture)
    answered = np.full((50, 90), 255)
    for part in found:
        answered[np.array(part["mask"]) == 255] = LABELS.label2id[part["label"]]
    # evaluation, written out: bilinear to the square, 0-1, ImageNet's mean and deviation, logits to the picture's own
    # size, arg max
    pixels = np.array(picture.resize((64, 64), Image.Resampling.BILINEAR), np.float64) / 255
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        logits = model(torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32))).logits
    wanted = torch.nn.functional.interpolate(logits, size=(50, 90), mode="bilinear").argmax(1)[0].numpy()
    assert len(np.unique(wanted)) > 1
    assert np.mean(answered == wanted) > 0.999  # a tie may fall either way
    assert SegformerImageProcessorPil().size == {
        "height": 512,
        "width": 512,
    }  # stock: whatever the model was trained at


@pytest.mark.slow
def test_processor_keeps_the_checkpoint_s_normalisation(checkpoint):
    folder = checkpoint("beit")
    SegformerImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.4] * 3, do_reduce_labels=True).save_pretrained(
        folder
    )
    processor = build(folder)[1]
    assert (processor.image_mean, processor.image_std) == ([0.5] * 3, [0.4] * 3)
    assert processor.size == {"height": 64, "width": 64}
    assert processor.do_resize
    assert not processor.do_reduce_labels


@pytest.mark.slow
def test_blue_green_red_checkpoint_gives_the_same_logits_on_red_green_blue(checkpoint, tmp_path):
    folder = checkpoint("mobilevit")
    own = MobileViTImageProcessorPil(size={"shortest_edge": 64}, do_center_crop=False)
    own.save_pretrained(folder)
    stock = AutoModelForSemanticSegmentation.from_pretrained(folder).eval()
    model, processor, notes = build(folder, labels=LabelSpace(names=tuple("abcde")))
    assert any("blue-green-red" in note for note in notes)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    with torch.no_grad():
        theirs = stock(own(picture, return_tensors="pt").pixel_values).logits
        ours = model(processor(picture, return_tensors="pt").pixel_values).logits
    torch.testing.assert_close(ours, theirs)
    # once saved, the model takes red-green-blue and is not turned round again
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    again = build(str(tmp_path / "saved"), labels=LabelSpace(names=tuple("abcde")))[0]
    torch.testing.assert_close(
        again.mobilevit.conv_stem.convolution.weight, model.mobilevit.conv_stem.convolution.weight
    )
    assert AutoImageProcessor.from_pretrained(tmp_path / "saved").size["height"] == 64
