import pytest
from transformers import SegformerConfig

from seg_recipe.models.configs import override_config
from tests.tiny_checkpoints import LABELS, build


def overridden(*entries):
    config = SegformerConfig()
    override_config(config, entries)
    return config


def test_only_what_is_named_changes():
    config = overridden("drop_path_rate=0", "layer_norm_eps=1e-5", "hidden_act=relu", "depths=[1, 1, 2, 2]")
    changed = {name for name, value in config.to_dict().items() if value != SegformerConfig().to_dict()[name]}
    assert changed == {"drop_path_rate", "layer_norm_eps", "hidden_act", "depths"}
    assert (config.drop_path_rate, config.layer_norm_eps, config.hidden_act, config.depths) == (
        0.0,
        1e-5,
        "relu",
        [1, 1, 2, 2],
    )
    assert isinstance(config.drop_path_rate, float)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("drop_path_rate", "config_overrides holds 'drop_path_rate'; wanted name=value, as in drop_path_rate=0.0."),
        (
            "drop_path=0",
            "config_overrides: segformer has no setting drop_path that can be changed. Did you mean drop_path_rate?",
        ),
        ("drop_path_rate=none", "config_overrides: drop_path_rate is 'none'; wanted a number, as its value 0.1."),
        (
            "num_encoder_blocks=2.5",
            "config_overrides: num_encoder_blocks is '2.5'; wanted a whole number, as its value 4.",
        ),
        (
            "depths=[1, 2]",
            "config_overrides: depths is '[1, 2]'; wanted a list of 4 numbers, as its value [2, 2, 2, 2].",
        ),
        (
            "depths=[1, 2",
            "config_overrides: depths is '[1, 2'; wanted a list of 4 numbers, as its value [2, 2, 2, 2].",
        ),
        ("hidden_act=.5", "config_overrides: hidden_act is '.5'; wanted a text, as its value 'gelu'."),
    ],
)
def test_what_cannot_be_set_is_refused(entry, text):
    with pytest.raises(ValueError) as caught:
        overridden(entry)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["num_labels", "id2label", "architectures", "dtype", "semantic_loss_ignore_index"])
def test_what_the_recipe_sets_itself_is_refused(name):
    with pytest.raises(ValueError, match=f"segformer has no setting {name} that can be changed"):
        overridden(f"{name}=3")


def test_the_model_is_built_with_them():
    model, _, _ = build(
        "nvidia/mit-b0", from_scratch=True, config_overrides=["decoder_hidden_size=32", "classifier_dropout_prob=0"]
    )
    assert model.decode_head.classifier.in_channels == 32 and model.decode_head.dropout.p == 0
    assert model.config.num_labels == len(LABELS.names)
