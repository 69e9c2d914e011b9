"""Checkpoints: what is loaded and what is new, and every way in which one can be missing, damaged or out of reach."""

import json
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.constants
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    SegformerForImageClassification,
)

from seg_recipe.labels import FACE
from tests.hub_stub import Commit, HubStub, connect, unreachable_url
from tests.tiny_checkpoints import KINDS, build, write_checkpoint


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path, monkeypatch):
    """Another cache of the Hub than the user's (its place was read at the import, before any variable of a test)."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def checkpoint(tmp_path):
    return partial(write_checkpoint, tmp_path)


# What is loaded and what is new


def test_classification_checkpoint_gives_the_backbone_and_names_the_new_head(checkpoint):
    folder = checkpoint("segformer", model_class=SegformerForImageClassification)
    model, _, notes = build(folder)
    backbone = [name for name in model.state_dict() if name.startswith("segformer.")]
    assert (
        notes[0]
        == f"{folder}: {len(backbone)} of 124 tensors are the checkpoint's; new are {124 - len(backbone)} of the head "
        "(decode_head)."
    )
    assert notes[1] == "2 tensors of the checkpoint have no place here: classifier.bias, classifier.weight."


@pytest.mark.slow
def test_missing_backbone_tensors_are_an_error_that_counts_them(checkpoint):
    folder = checkpoint()
    path = f"{folder}/model.safetensors"
    tensors = load_file(path)
    lost = [name for name in tensors if "block.2." in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in lost}, path, metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"restores \d+ of 108 tensors of the backbone; it lacks segformer\.\S+, .* and \d+ more"
    ) as caught:
        build(folder)
    restored = int(str(caught.value).split("restores ")[1].split(" of")[0])
    assert restored == 108 - len(lost)
    assert "--from_scratch true" in str(caught.value)
    assert "\n" not in str(caught.value)
    # stock: the same folder loads, with random numbers in their place
    config = AutoConfig.from_pretrained(folder)
    AutoModelForSemanticSegmentation.from_pretrained(folder, config=config, ignore_mismatched_sizes=True)


@pytest.mark.slow
def test_backbone_of_another_size_is_an_error(checkpoint):
    folder = checkpoint()
    config = json.loads((path := Path(folder) / "config.json").read_text())
    config["hidden_sizes"] = [8, 8, 16, 32]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="of them have another shape there"):
        build(folder)


@pytest.mark.slow
def test_seed_decides_the_new_weights_and_leaves_the_random_state_alone(checkpoint):
    folder = checkpoint("segformer", model_class=SegformerForImageClassification)
    before = torch.get_rng_state()
    for from_scratch in (False, True):
        one, two, other = (build(folder, from_scratch=from_scratch, seed=seed)[0].state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not torch.equal(one["decode_head.classifier.weight"], other["decode_head.classifier.weight"])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_half_precision_checkpoint_is_trained_in_float32(checkpoint, tmp_path):
    folder = checkpoint()
    AutoModelForSemanticSegmentation.from_pretrained(folder).half().save_pretrained(folder)
    assert AutoModelForSemanticSegmentation.from_pretrained(folder).dtype == torch.float16  # stock
    assert build(folder)[0].dtype == torch.float32
    assert build(folder, from_scratch=True)[0].dtype == torch.float32


@pytest.mark.slow
def test_damaged_weights_are_named(checkpoint):
    folder = checkpoint()
    with Path(folder, "model.safetensors").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(ValueError, match=r"the safetensors of .* are damaged .*; fetch or copy them again"):
        build(folder)


@pytest.mark.slow
def test_pickle_is_refused_and_never_read(checkpoint, tmp_path):
    folder = tmp_path / "pickle"
    AutoConfig.from_pretrained(checkpoint()).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    with pytest.raises(
        ValueError, match=r"pickle only, which can run any code when it is read; wanted model\.safetensors"
    ):
        build(str(folder))
    build(str(folder), from_scratch=True)


def test_folder_that_is_no_checkpoint(tmp_path, checkpoint):
    with pytest.raises(ValueError, match=r"has no config\.json; wanted a folder that save_pretrained wrote"):
        build(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        ValueError, match=r"is of type 'bert', which has no semantic segmentation here; wanted one of: beit, "
    ):
        build(str(tmp_path), from_scratch=True)
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}})
    )
    with pytest.raises(ValueError, match="cannot be read without running code of its own"):
        build(str(tmp_path), from_scratch=True)
    with pytest.raises(ValueError, match=r"model: \./no/such/folder is neither a folder nor a Hub id"):
        build("./no/such/folder")


@pytest.mark.slow
def test_missing_shard_is_named(checkpoint):
    folder = checkpoint()
    AutoModelForSemanticSegmentation.from_pretrained(folder).save_pretrained(folder, max_shard_size="30KB")
    shards = sorted(path.name for path in Path(folder).glob("model-*.safetensors"))
    assert len(shards) > 1
    if (whole := Path(folder) / "model.safetensors").exists():
        whole.unlink()
    build(folder)
    (Path(folder) / shards[1]).unlink()
    with pytest.raises(ValueError, match=f"lacks {shards[1]}"):
        build(folder)


# Without and with a network


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "millions"),  # parameters of the SegFormer models as the paper's table 1 and 2 round them
    [("nvidia/mit-b0", 3.8), ("nvidia/mit-b1", 13.7), ("nvidia/segformer-b2-finetuned-ade-512-512", 27.5)],
)
def test_segformer_sizes_are_known_without_a_file(name, millions):
    model, processor, notes = build(name, from_scratch=True, labels=FACE, image_size=512)
    assert model.num_parameters() / 1e6 == pytest.approx(millions, abs=0.15)
    assert notes == [
        f"{name}: from scratch, {len(model.state_dict())} tensors initialised with seed 0; nothing is pretrained."
    ]
    assert list(processor.image_mean) == [0.485, 0.456, 0.406]
    assert model.name_or_path == name


def offline_text(name="nvidia/mit-b0"):
    return f"model: {name} is not in the cache and cannot be fetched: "


WAYS_OUT = (
    "Give a local folder with config.json and model.safetensors (--model PATH), or train from nothing: "
    "--from_scratch true."
)


def assert_refused(name, reason):
    start = time.monotonic()
    with pytest.raises(ValueError) as caught:
        build(name)
    assert str(caught.value).startswith(offline_text(name) + reason)
    assert str(caught.value).endswith(WAYS_OUT)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 60


def test_offline_names_the_ways_out(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert_refused("nvidia/mit-b0", "HF_HUB_OFFLINE is set")


def test_refused_connection(monkeypatch, tmp_path):
    url = unreachable_url()
    connect(monkeypatch, tmp_path, url)
    assert_refused("nvidia/mit-b0", f"{url} does not serve it (")


@pytest.mark.long
def test_black_hole(monkeypatch, tmp_path):
    with socket.socket() as listener:  # connections are accepted by the kernel, and never answered
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        connect(monkeypatch, tmp_path, url)
        assert_refused("nvidia/mit-b0", f"{url} does not serve it (no answer within 8 s)")


def test_hub_without_that_model(monkeypatch, tmp_path):
    with HubStub() as hub:
        reach(hub, monkeypatch, tmp_path)
        assert_refused("nvidia/mit-b0", f"{hub.url} has no such model, or it is private (`hf auth login`)")
        hub.answer(401, times=9)
        assert_refused("nvidia/mit-b0", f"{hub.url} ")


def reach(hub, monkeypatch, tmp_path):
    hub.connect(monkeypatch, tmp_path, token=None)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )


def put_on_hub(hub, repo, folder, skip=()):
    hub.add_repo(repo)
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name not in skip}
    hub.repos[repo].commits.append(Commit("first", files))


@pytest.mark.slow
def test_fetched_once_and_then_taken_from_the_cache(monkeypatch, tmp_path, checkpoint):
    folder = checkpoint()
    (Path(folder) / "pytorch_model.bin").write_bytes(b"a pickle beside it is left where it is")
    with HubStub() as hub:
        reach(hub, monkeypatch, tmp_path)
        put_on_hub(hub, "ada/tiny", folder)
        first, _, notes = build("ada/tiny")
        assert "ada/tiny: 122 of 124 tensors" in notes[0]
        assert first.name_or_path == "ada/tiny"
        assert not any("pytorch_model.bin" in request for request in hub.requests)
        asked = len(hub.requests)
        second, _, _ = build("ada/tiny")
        assert len(hub.requests) == asked
        first.save_pretrained(tmp_path / "saved")
        assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text()
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


def test_from_scratch_fetches_the_config_alone(monkeypatch, tmp_path, checkpoint):
    with HubStub() as hub:
        reach(hub, monkeypatch, tmp_path)
        put_on_hub(hub, "ada/tiny", checkpoint())
        build("ada/tiny", from_scratch=True)
        assert not any("safetensors" in request for request in hub.requests)


def test_pickle_only_repository_is_refused_unless_the_hub_s_bot_converted_it(monkeypatch, tmp_path, checkpoint):
    folder = checkpoint()
    discussion = {"num": 3, "title": "Adding `safetensors` variant of this model", "author": "SFconvertbot"}
    offered = []
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "get_repo_discussions",
        lambda *_, **__: iter([SimpleNamespace(**entry) for entry in offered]),
    )
    with HubStub() as hub:
        reach(hub, monkeypatch, tmp_path)
        put_on_hub(hub, "ada/old", folder, skip=("model.safetensors",))
        hub.repos["ada/old"].commits[0].files["pytorch_model.bin"] = b"a pickle"
        for author in (None, "someone"):
            offered[:] = [discussion | {"author": author}] if author else []
            with pytest.raises(ValueError, match="ada/old has its weights as a pickle only"):
                build("ada/old")
        asked = []
        monkeypatch.setattr(
            "seg_recipe.models.checkpoint.snapshot_download",
            lambda name, **settings: asked.append(settings["revision"]) or folder,
        )
        offered[:] = [discussion]
        build("ada/old")
        assert asked == ["refs/pr/3"]


@pytest.mark.long
def test_import_is_quiet_and_needs_no_torchvision():
    code = "import sys; import seg_recipe.models; sys.exit('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_versions_have_the_architectures_tested_here():
    known = set(transformers.models.auto.modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES)
    assert set(KINDS) <= known
