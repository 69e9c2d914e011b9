"""The layouts that are known, and whether a source is one of them."""

import re
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from seg_recipe.importers import (
    ade20k,
    airsim,
    blenderproc,
    camvid,
    celebamask_hq,
    coco,
    cvat,
    easysynth,
    face_synthetics,
    helen,
    infinigen,
    kubric,
    label_studio,
    labelme,
    labelme_json,
    lapa,
    replicator,
    roboflow,
    segnet,
    solo,
    streets,
    supervisely,
    synth_face,
    synth_human,
    voc,
)
from seg_recipe.importers.samples import Layout
from seg_recipe.importers.sources import LeftOut, SourceFile

PAIRS = "pairs"


class Format(NamedTuple):
    """A layout: its reader, and how to recognise it.

    marks: each of these patterns must match a file's name. never: none of these may; they tell layouts apart that have
    the same folders and other classes. confirm: looks into files where names do not suffice. otherwise: tells by
    content a source that has the marks of no layout.
    """

    read: Callable[[dict[str, SourceFile], LeftOut], Layout]
    marks: tuple[str, ...]
    never: tuple[str, ...] = ()
    confirm: Callable[[dict[str, SourceFile]], bool] | None = None
    otherwise: Callable[[dict[str, SourceFile]], bool] | None = None

    def claims(self, files: dict[str, SourceFile]) -> bool:
        """Whether these files have the marks of this layout."""
        return (
            all(_some(mark, files) for mark in self.marks)
            and not any(_some(mark, files) for mark in self.never)
            and (self.confirm is None or self.confirm(files))
        )


def _some(pattern: str, files: dict[str, SourceFile]) -> bool:
    return any(map(re.compile(pattern).fullmatch, files))


def _format(module: ModuleType | streets.Street) -> Format:
    looks = (getattr(module, name, None) for name in ("CONFIRM", "OTHERWISE"))
    return Format(module.read, module.MARKS, getattr(module, "NEVER", ()), *looks)


FORMATS = {
    "face_synthetics": _format(face_synthetics),
    "synth_face": _format(synth_face),
    "celebamask_hq": _format(celebamask_hq),
    "lapa": _format(lapa),
    "helen": _format(helen),
    "voc": _format(voc),
    "camvid": _format(camvid),
    "labelme": _format(labelme),
    "labelme_json": _format(labelme_json),
    "label_studio": _format(label_studio),
    "supervisely": _format(supervisely),
    "cvat": _format(cvat),
    "coco": _format(coco),
    "roboflow": _format(roboflow),
    "segnet": _format(segnet),
    "cityscapes": _format(streets.CITYSCAPES),
    "acdc": _format(streets.ACDC),
    "gta5": _format(streets.GTA5),
    "urbansyn": _format(streets.URBANSYN),
    "synthia": _format(streets.SYNTHIA),
    "synscapes": _format(streets.SYNSCAPES),
    "ade20k": _format(ade20k),
    "infinigen": _format(infinigen),
    "solo": _format(solo),
    "replicator": _format(replicator),
    "easysynth": _format(easysynth),
    "kubric": _format(kubric),
    "airsim": _format(airsim),
    "synth_human": _format(synth_human),
    "blenderproc": _format(blenderproc),
}


def claimants(files: dict[str, SourceFile]) -> list[str]:
    """The layouts whose marks these files have; if there is none, those that are told by content."""
    found = [name for name, known in FORMATS.items() if known.claims(files)]
    return found or [name for name, known in FORMATS.items() if known.otherwise and known.otherwise(files)]
