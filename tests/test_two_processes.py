"""scripts/finetune.py to its end in two processes whose BatchNorm learns: what is recorded is what is saved is what is
loaded.
"""

import json
import os
import signal
import socket

import pytest
import yaml

from tests import finetune_runs as runs
from tests import tiny
from tests.tiny_checkpoints import tiny_config

RATES = {"segformer": 0.01, "upernet": 0.03}
STEPS = 12
pytestmark = pytest.mark.long


def prepared(place, kind):
    """A recipe for a tiny model of an architecture, and a config that starts two processes."""
    from transformers import AutoModelForSemanticSegmentation

    runs.workplace(place, train=24, val=6)
    tiny.torch.manual_seed(3)
    AutoModelForSemanticSegmentation.from_config(tiny_config(kind, len(tiny.LABELS))).save_pretrained(place / "model")
    config = yaml.safe_load((runs.ROOT / "recipes" / "accelerate" / "multi_cpu.yaml").read_text())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (place / "two.yaml").write_text(yaml.safe_dump({**config, "main_process_port": probe.getsockname()[1]}))
    settings = {
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "max_steps": STEPS,
        "image_size": 64,
    }
    return runs.write_recipe(place, **settings, learning_rate=RATES[kind], eval_steps=2, save_steps=4)


def start(recipe, *options):
    return runs.start(recipe, *options, launcher=True, config=recipe.parent / "two.yaml")


def killed_after(step, recipe):
    """Start a run and kill all its processes at once when its line for `step` appears."""
    launcher = start(recipe)
    lines = []
    for line in launcher.stdout:
        lines.append(line)
        if line.startswith(f"step {step}/"):
            os.killpg(launcher.pid, signal.SIGKILL)
            launcher.wait(60)
            launcher.stdout.close()
            return
    raise AssertionError(f"it ended early:\n{''.join(lines)}")


@pytest.mark.parametrize("kind", RATES)
def test_the_recorded_best_is_the_loaded_one_to_the_bit_also_after_a_kill(tmp_path, kind):
    recipe = prepared(tmp_path, kind)
    code, output = runs.finish(start(recipe, "--output_dir", tmp_path / "whole"))
    assert code == 0 and "2 process(es) on cpu" in output, output
    assert "when it was saved" not in output
    killed_after(7, recipe)
    code, output = runs.finish(start(recipe))
    assert code == 0 and "Going on from" in output, output
    ends = {}
    for name in ("whole", "run"):
        state = json.loads((tmp_path / name / f"checkpoint-{STEPS}" / "trainer_state.json").read_text())
        results = json.loads((tmp_path / name / "results.json").read_text())
        recorded = {entry["step"]: entry for entry in state["log_history"] if "eval_miou" in entry}
        best = recorded[state["best_global_step"]]
        figures = ["loss", "miou", *(figure for figure in results["metrics"] if figure.startswith("iou_"))]
        saved, loaded = (
            [best[f"eval_{figure}"] for figure in figures],
            [results["metrics"][figure] for figure in figures],
        )
        print(f"{kind}, {name}, step {best['step']}, {', '.join(figures)}: recorded {saved}, loaded {loaded}")
        assert loaded == saved, "to the bit"
        assert state["best_metric"] == best["eval_miou"] == max(entry["eval_miou"] for entry in recorded.values())
        assert len({entry["eval_loss"] for entry in recorded.values()}) == len(recorded), (
            "the test needs figures that move"
        )
        ends[name] = {step: [entry[f"eval_{figure}"] for figure in figures] for step, entry in recorded.items()}
    assert ends["whole"] == ends["run"]
    runs.assert_same_weights(tmp_path / "run", tmp_path / "whole")
    runs.assert_same_weights(tmp_path / "run" / f"checkpoint-{STEPS}", tmp_path / "whole" / f"checkpoint-{STEPS}")
