"""The model card: what the model is, how well the best checkpoint does, how to use it, what may be done with it.

The Trainer's own card leaves `model-index` empty for a mean IoU, shows the last evaluation, and states no licence of
the data. A card is `README.md` in the model's folder: YAML metadata that the Hub reads, then Markdown.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from seg_recipe.hub.licences import licence_statement
from seg_recipe.hub.markdown import is_hub_id, link, literal, slug, source_name
from seg_recipe.labels import FACE
from seg_recipe.runtime.commands import command
from seg_recipe.runtime.errors import InputError
from seg_recipe.runtime.files import replaced_file

_HEADLINES = (
    ("miou", "mIoU-D", "mean_iou"),
    ("miou_foreground", "mIoU-D without background", "mean_iou"),
    ("miou_i", "mIoU-I", "mean_iou"),
    ("miou_c", "mIoU-C", "mean_iou"),
    ("accuracy", "Pixel accuracy", "accuracy"),
    ("mean_accuracy", "Mean class accuracy", "accuracy"),
)
"""Key in the metrics, name in the card, the Hub's metric type; the first is the one that chooses the checkpoint."""

Metrics = Mapping[str, Mapping[str, float | int]]
"""Evaluation set -> name of a metric -> its value."""


def evaluation_at(log_history: Sequence[Mapping[str, Any]], step: int) -> dict[str, Any]:
    """The metrics of all evaluations that the Trainer logged at `step`, without their `eval_`; may be empty."""
    return {
        key.removeprefix("eval_"): value
        for entry in log_history
        if entry.get("step") == step
        for key, value in entry.items()
        if key.startswith("eval_")
    }


def write_card(
    folder: Path,
    *,
    repo_id: str | None,
    label_names: Sequence[str],
    datasets: Sequence[str],
    metrics: Metrics,
    step: int,
    recipe: str,
    versions: Mapping[str, str],
    pictures: Mapping[str, str] | None = None,
    pseudo_labelled: Mapping[str, str] | None = None,
    **licences: Any,
) -> Path:
    """Write `folder`/README.md and return its path. A hard link to an older card keeps the older one.

    repo_id: `namespace/name`; None: the folder's own name is shown. label_names: class i is `label_names[i]`.
    datasets: the training sources; folders are shown by their last name only. metrics: evaluation set -> metrics of
    the checkpoint saved at `step`, as `SegmentationMetrics` names them (shares in 0-1; an absent class has no key);
    the first set is the one that chose the checkpoint. recipe: the resolved YAML. versions: package -> version.
    pictures: caption -> path relative to `folder`; InputError for a file that is not there.
    pseudo_labelled: of the sources whose masks a model predicted, that model's name.
    licences: the arguments of `licence_statement`, and its errors.
    """
    licence = licence_statement(**licences)
    base_model, generated_only = licences["base_model"], licences["generated_only"]
    name = repo_id or folder.resolve().name
    title = name.split("/")[-1]
    hub_datasets = [source for source in datasets if is_hub_id(source)]
    data = ModelCardData(
        pipeline_tag="image-segmentation",
        library_name="transformers",
        base_model=base_model if base_model and is_hub_id(base_model) else None,
        datasets=hub_datasets or None,
        license=licence.identifier,
        license_name=licence.name,
        metrics=["mean_iou", "accuracy"],
        tags=["vision", "semantic-segmentation", *(["synthetic-data"] if generated_only else [])],
        model_name=title,
        eval_results=_eval_results(metrics, datasets) or None,
    )
    sections = [
        f"# {literal(title)}",
        _opening(base_model, datasets, len(label_names)) + _pseudo_labels(pseudo_labelled or {}),
        "## Results\n\n" + _results(metrics, step, len(label_names)),
        _pictures(folder, pictures or {}),
        "## How to use it\n\n" + _usage(name, folder),
        "## Labels\n\n" + _labels(label_names, metrics),
        "" if generated_only else _facewear(label_names, metrics),
        "## Licences\n\n" + licence.text,
        "## How it was made\n\n" + _recipe(recipe, versions),
    ]
    body = "\n\n".join(section for section in sections if section)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n")  # raises for metadata that are no YAML
    with replaced_file(folder / "README.md") as unfinished:
        unfinished.write_text(str(card), encoding="utf-8")
    return folder / "README.md"


def _eval_results(metrics: Metrics, datasets: Sequence[str]) -> list[EvalResult]:
    """One result per headline and evaluation set, the choosing set first; values that are not finite are left out."""
    sources = ", ".join(source_name(source) for source in datasets)
    held_out_of = datasets[0] if len(datasets) == 1 and is_hub_id(datasets[0]) else slug(sources or "unnamed")
    return [
        EvalResult(
            task_type="image-segmentation",
            task_name="Semantic segmentation",
            dataset_type=held_out_of if name == "validation" else slug(name),
            dataset_name=f"{sources} (validation)" if name == "validation" else name,
            dataset_split=name,
            metric_type=metric_type,
            metric_name=title,
            metric_value=round(float(values[key]), 6),
        )
        for name, values in metrics.items()
        for key, title, metric_type in _HEADLINES
        if key in values and math.isfinite(values[key])
    ]


def _opening(base_model: str | None, datasets: Sequence[str], classes: int) -> str:
    origin = "trained from scratch" if base_model is None else f"fine-tuned from {link(base_model)}"
    sources = ", ".join(link(source, "datasets/") for source in datasets)
    return f"Semantic segmentation into {classes} classes, {origin}" + (f" on {sources}." if sources else ".")


def _pseudo_labels(models: Mapping[str, str]) -> str:
    """A sentence for each source of pseudo-labels."""
    return "".join(
        f"\n\nThe masks of {literal(source_name(source))} are pseudo-labels, which {literal(source_name(model))} "
        "predicted: its errors were trained on, too. None of the results are judged by them."
        for source, model in models.items()
    )


def _results(metrics: Metrics, step: int, classes: int) -> str:
    """Headlines as rows, evaluation sets as columns."""
    rows = [[title, *(_number(values.get(key)) for values in metrics.values())] for key, title, _ in _HEADLINES]
    present = [
        f"{int(values['classes_present'])} of {classes}" if "classes_present" in values else "–"
        for values in metrics.values()
    ]
    return (
        f"Of the weights at step {step}:\n\n"
        + _table(["", *map(literal, metrics)], [*rows, ["Classes present", *present]])
        + "\n\nmIoU-D: one IoU per class over the whole set, then the mean over the classes that occur. mIoU-I: per "
        "image over the classes "
        "in it, then over images. mIoU-C: per class over the images in which it occurs, then over classes."
    )


def _labels(label_names: Sequence[str], metrics: Metrics) -> str:
    rows = [
        [str(label), literal(name), *(_number(values.get(f"iou_{name}")) for values in metrics.values())]
        for label, name in enumerate(label_names)
    ]
    return (
        _table(["id", "label", *(f"IoU, {literal(name)}" for name in metrics)], rows)
        + "\n\n–: the class does not occur in that set."
    )


def _facewear(label_names: Sequence[str], metrics: Metrics) -> str:
    """A note on FaceSynthetics' facewear; empty for other classes, or if the evaluation data have the class."""
    if tuple(label_names) != FACE.names or any("iou_facewear" in values for values in metrics.values()):
        return ""
    return (
        "FaceSynthetics paints what is worn over a face, such as a medical mask, as background (facewear occurs in "
        "none of its masks), and so does a model that was trained on it."
    )


def _pictures(folder: Path, pictures: Mapping[str, str]) -> str:
    for path in pictures.values():
        if Path(path).is_absolute() or ".." in Path(path).parts or not (folder / path).is_file():
            raise InputError(
                f"Picture {path} of the model card is not a file inside {folder}; give its path relative to that "
                "folder."
            )
    return "\n\n".join(f"![{literal(caption)}]({path})\n\n{literal(caption)}" for caption, path in pictures.items())


def _usage(name: str, folder: Path) -> str:
    config = folder / "config.json"
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type") if config.is_file() else ""
    # the pipeline makes segments of a mask classifier's queries, unless it is told otherwise
    asked = ', subtask="semantic"' if kind == "mask2former" else ""
    return f"""```python
from transformers import pipeline

segment = pipeline("image-segmentation", model={json.dumps(name, ensure_ascii=False)})
for part in segment("photo.png"{asked}):
    print(part["label"], part["mask"].size)  # one 8-bit mask per class found: photo's size, 255 where the class is
```"""


def _recipe(recipe: str, versions: Mapping[str, str]) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", recipe)), default=0))
    return (
        f"`{command('finetune', 'recipe.yaml')}` with this recipe:\n\n"
        f"<details>\n<summary>recipe.yaml</summary>\n\n{fence}yaml\n{recipe.strip()}\n{fence}\n\n</details>\n\n"
        "Versions: " + ", ".join(f"{package} {version}" for package, version in versions.items()) + "."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(" ".join(cell.split()) for cell in cells) + " |"

    return "\n".join([line(head), "|" + " --- |" * len(head), *(line(row) for row in rows)])


def _number(value: float | int | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"
