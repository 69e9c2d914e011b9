"""The layers of a backbone: what is frozen, how fast each learns, and that a run over the thaw goes on exactly."""

import json

import pytest
import torch
from transformers import (
    AutoModelForSemanticSegmentation,
    ConvNextConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    HieraConfig,
    PvtV2Config,
    ResNetConfig,
    SwinConfig,
    UperNetConfig,
)

from seg_recipe.models import Frozen, freeze, parameter_groups
from seg_recipe.models.layers import layers_of
from seg_recipe.runtime.errors import InputError
from seg_recipe.trainer import SegmentationTrainer
from tests import finetune_runs as runs
from tests import tiny
from tests.test_finetune import stop_at
from tests.test_trainer import arguments
from tests.tiny_checkpoints import KINDS, VIT, tiny_config

DEPTHS = [1, 2, 1, 1]
BACKBONES = {
    # kind: (its config, stages as the config says, blocks as the config says)
    "dinov2": (lambda: Dinov2Config(**VIT, out_features=["stage1", "stage2", "stage3", "stage4"]), 4, 4),
    "dinov2_with_registers": (
        lambda: Dinov2WithRegistersConfig(**VIT, out_features=["stage1", "stage2", "stage3", "stage4"]),
        *(4, 4),
    ),
    "dinov3_vit": (lambda: DINOv3ViTConfig(**VIT, out_features=["stage1", "stage2", "stage3", "stage4"]), 4, 4),
    "swin": (lambda: SwinConfig(embed_dim=8, depths=DEPTHS, num_heads=[1] * 4, window_size=4, image_size=64), 4, 5),
    "convnext": (lambda: ConvNextConfig(hidden_sizes=[8] * 4, depths=DEPTHS), 4, 5),
    "resnet": (lambda: ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=DEPTHS, layer_type="basic"), 4, 5),
    "hiera": (
        lambda: HieraConfig(embed_dim=8, depths=DEPTHS, num_heads=[1, 2, 4, 8], image_size=[64, 64]),
        *(4, 5),
    ),
    "pvt_v2": (
        lambda: PvtV2Config(depths=DEPTHS, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4),
        *(4, 5),
    ),
}


def network(kind):
    """A tiny segmentation model with a backbone of the kind, and what its config says of its stages and blocks."""
    torch.manual_seed(3)
    names = {"id2label": tiny.segformer().config.id2label}
    if kind in KINDS:
        config = tiny_config(kind, len(tiny.LABELS))
        if kind == "segformer":
            config.depths = DEPTHS
        blocks = {"segformer": sum(DEPTHS), "mobilenet_v2": 16}.get(kind, 4)
        return AutoModelForSemanticSegmentation.from_config(config), 16 if blocks == 16 else 4, blocks
    make, stages, blocks = BACKBONES[kind]
    backbone = make()
    backbone.out_features = [name for name in backbone.stage_names if name != "stem"]
    if hasattr(backbone, "reshape_hidden_states"):
        backbone.reshape_hidden_states = True
    config = UperNetConfig(backbone_config=backbone, use_auxiliary_head=False, hidden_size=8, pool_scales=[1], **names)
    return AutoModelForSemanticSegmentation.from_config(config), stages, blocks


def moved(before, model):
    """The names of the tensors that are no longer what they were, buffers included."""
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def train(model, folder, steps=3, **settings):
    run = SegmentationTrainer(
        model,
        arguments(
            folder,
            **{
                "max_steps": steps,
                "eval_strategy": "no",
                "save_strategy": "no",
                "load_best_model_at_end": False,
                "metric_for_best_model": None,
                "weight_decay": 0.1,
                "learning_rate": 1e-3,
            },
        ),
        train_dataset=tiny.Samples(16, size=64),
        **settings,
    )
    run.train()
    return run


# ---- what is known of the layers


@pytest.mark.parametrize("kind", [*BACKBONES, "segformer", "beit", "data2vec-vision", "dpt", "mobilenet_v2"])
def test_stages_and_blocks_are_those_of_the_config_and_come_in_the_order_of_the_data(kind):
    model, stages, blocks = network(kind)
    found = layers_of(model, "layer_decay")
    assert (found.stages, found.blocks) == (stages, blocks)
    assert found.unit == ("stages" if blocks == 5 else "blocks")
    places = list(found.places.values())
    assert {place.layer for place in places if 0 < place.layer <= blocks} == {*range(1, blocks + 1)}
    assert {place.stage for place in places if 0 < place.layer <= blocks} == {*range(1, stages + 1)}
    first = next(iter(found.places))
    assert found.places[first].stage in (0, 1)  # DINOv3's and PVT's stem is part of the first stage
    within = [place for place in places if place.layer <= blocks]
    assert within == sorted(within)
    for name, place in found.places.items():
        if "embeddings" in name and "stages" not in name:
            assert place == (0, 0), name
        if "hidden_states_norms" in name:
            assert place == (stages + 1, blocks + 1), name


def test_a_backbone_whose_layers_are_not_known_is_refused_by_name():
    model, _, _ = network("mobilevit")
    with pytest.raises(InputError, match=r"^layer_decay needs the layers of the backbone, and those of mobilevit"):
        parameter_groups(model, learning_rate=1.0, head_learning_rate_factor=1.0, weight_decay=0.0, layer_decay=0.9)
    with pytest.raises(InputError, match=r"^freeze_backbone: stages=2 needs the layers .* mobilevit are not known"):
        freeze(model, "stages=2")
    assert freeze(model, "all") != []


@pytest.mark.parametrize(
    ("kind", "setting", "words"),
    [
        ("dinov2", "stages=2", r"has 4 blocks: wanted blocks=1 to blocks=4, or all\.$"),
        ("dinov2", "blocks=5", r"has 4 blocks: wanted blocks=1 to blocks=4, or all\.$"),
        ("convnext", "blocks=2", r"has 4 stages: wanted stages=1 to stages=4, or all\.$"),
    ],
)
def test_parts_that_a_backbone_has_not_are_refused(kind, setting, words):
    with pytest.raises(InputError, match=rf"^freeze_backbone is {setting}; the backbone {words}"):
        freeze(network(kind)[0], setting)


# ---- rates


@pytest.mark.parametrize("kind", ["dinov2_with_registers", "swin", "resnet", "segformer"])
def test_the_rate_of_each_parameter_is_that_of_its_layer(kind):
    """The depth is read off the names here, by hand for each architecture."""
    model, _, blocks = network(kind)
    groups = parameter_groups(
        model, learning_rate=1e-3, head_learning_rate_factor=5.0, weight_decay=0.1, layer_decay=0.8
    )
    before = {"dinov2_with_registers": [0, 1, 2, 3], "swin": [0, 1, 3, 4]}.get(kind, [0, 1, 3, 4])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(one)]: group["lr"] for group in groups for one in group["params"]}
    assert rates.keys() == dict(model.named_parameters()).keys()
    for name, rate in rates.items():
        parts, depth = name.split("."), None
        numbers = [int(part) for part in parts if part.isdigit()]
        if name.startswith("decode_head"):
            assert rate == pytest.approx(5e-3)
            continue
        if "norms" in name or (parts[-2] == "layernorm" and not numbers):
            depth = blocks + 1
        elif not numbers:
            depth = 0
        elif kind == "dinov2_with_registers":
            depth = numbers[0] + 1
        elif len({"blocks", "layers"} & {*parts}) + ("stages" in parts) < 2 or (
            kind == "swin" and "blocks" not in parts
        ):
            depth = before[numbers[0]] + (2 if numbers[0] == 1 and "patch_embeddings" not in parts else 1)
        else:
            depth = before[numbers[0]] + numbers[1] + 1
        assert rate == pytest.approx(1e-3 * 0.8 ** (blocks + 1 - depth)), name
    fastest = max(group["lr"] for group in groups if group["name"].startswith("backbone"))
    assert groups[0]["lr"] == fastest  # the one that logs call learning_rate
    assert all(g["weight_decay"] == (0 if g["name"].endswith("no_decay") else 0.1) for g in groups)


def test_a_decay_of_one_leaves_the_groups_as_they_are():
    model, _, _ = network("swin")
    settings = {"learning_rate": 1e-3, "head_learning_rate_factor": 5.0, "weight_decay": 0.1}
    assert parameter_groups(model, **settings, layer_decay=1.0) == parameter_groups(model, **settings)


# ---- what stands still


@pytest.mark.parametrize(
    ("kind", "setting", "still"),
    [
        ("resnet", "all", ("backbone.",)),
        ("resnet", "stages=2", ("backbone.embedder.", "backbone.encoder.stages.0.", "backbone.encoder.stages.1.")),
        ("dinov2_with_registers", "blocks=1", ("backbone.embeddings.", "backbone.encoder.layer.0.")),
        ("mobilenet_v2", "blocks=1", ("mobilenet_v2.conv_stem.", "mobilenet_v2.layer.0.")),
    ],
)
def test_what_is_frozen_does_not_move_in_three_steps_and_the_rest_does(kind, setting, still, tmp_path):
    """Running statistics of BatchNorm count as moving; so does weight decay."""
    model = network(kind)[0]
    notes = freeze(model, setting)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = train(model, tmp_path)
    changed = moved(before, run.model)
    assert not any(name.startswith(still) for name in changed)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    unused = {name for name in trained if "mask_token" in name or "mobilenet_v2.conv_1x1" in name}
    assert trained - unused <= changed | {n for n in trained if "key.bias" in n or "k_proj.bias" in n}
    assert not any(name.startswith(still) for name in trained)
    states = run.optimizer.state_dict()["state"]
    assert len(states) <= len(trained)
    count = len([name for name, _ in model.named_parameters() if name.startswith(still)])
    assert f"{setting}: {count} of" in notes[0]


def test_the_statistics_of_a_frozen_batch_norm_would_move_in_the_stock_way(tmp_path, monkeypatch):
    monkeypatch.setattr(Frozen, "hold", lambda self, step: None)
    model = network("resnet")[0]
    freeze(model, "all")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any(
        "running_mean" in name and name.startswith("backbone.") for name in moved(before, train(model, tmp_path).model)
    )


def test_in_its_first_steps_the_head_learns_alone(tmp_path):
    model = network("resnet")[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = train(model, tmp_path / "frozen", frozen_steps=3)
    assert not any(name.startswith("backbone.") for name in moved(before, run.model))
    held = sum(len(group["params"]) for group in run.optimizer.param_groups if group["name"].startswith("head"))
    assert len(run.optimizer.state_dict()["state"]) == held
    model = network("resnet")[0]
    run = train(model, tmp_path / "thawed", steps=4, frozen_steps=3)
    trained = {name for name, _ in model.named_parameters()}
    assert trained <= moved(before, run.model)
    steps = {int(state["step"]) for state in run.optimizer.state_dict()["state"].values()}
    assert steps == {4, 1}


@pytest.mark.long
def test_a_run_stopped_on_either_side_of_the_thaw_ends_with_the_same_bits(tmp_path):
    runs.workplace(tmp_path)
    model = network("resnet")[0]
    model.save_pretrained(tmp_path / "model")
    recipe = runs.write_recipe(
        tmp_path, image_size=64, freeze_backbone="steps=4", layer_decay=0.7, max_steps=6, save_steps=3, eval_steps=3
    )
    runs.train(recipe)
    for step in (2, 4, 5):  # before the thaw, in the last frozen step, after it
        stop_at(step, recipe, "--output_dir", tmp_path / f"stopped-{step}")
        runs.train(recipe, "--output_dir", tmp_path / f"stopped-{step}")
        runs.assert_same_weights(tmp_path / "run", tmp_path / f"stopped-{step}")
    history = json.loads((tmp_path / "run" / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    first = next(entry for entry in history if "loss" in entry)
    rates = {name: rate for name, rate in first.items() if name.startswith("learning_rate/")}
    assert rates["learning_rate/backbone_0"] == pytest.approx(0.7 ** (5 + 1) / 10 * rates["learning_rate/head"])
    assert {f"learning_rate/backbone_{layer}" for layer in range(6)} <= rates.keys()


# ---- the recipe


def test_the_first_steps_under_fsdp_are_refused(tmp_path, monkeypatch):
    """Seen on two gloo processes: the run trains, and its checkpoint of a frozen step cannot be loaded."""
    runs.workplace(tmp_path, train=4, val=2)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    words = "freeze_backbone is steps=3, and the launcher asks for FSDP, which cannot go on from a checkpoint"
    assert words in runs.refused(monkeypatch, runs.write_recipe(tmp_path, freeze_backbone="steps=3"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"freeze_backbone": "stages"}, "freeze_backbone is stages; wanted all, stages=N, blocks=N or steps=N"),
        ({"freeze_backbone": "steps=0"}, "freeze_backbone is steps=0; wanted all"),
        ({"freeze_backbone": "all", "from_scratch": True}, "from_scratch is true: what is frozen would be random"),
        ({"layer_decay": 1.5}, "layer_decay is 1.5; wanted a number in (0, 1]"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused(settings, words, tmp_path, monkeypatch):
    runs.workplace(tmp_path, train=4, val=2)
    assert words in runs.refused(monkeypatch, runs.write_recipe(tmp_path, **settings))
