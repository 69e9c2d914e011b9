"""Import foreign data sets: a folder, a zip or a tar becomes samples, and these the folders that training reads.

sources.py      lists a folder or an archive safely
formats.py      FORMATS, the known layouts: one module each, whose docstring describes it
samples.py      the result of a layout: a Layout of Samples (id, image, mask, group)
recognition.py  recognises the layout of a source; describes an unknown one
published.py    names of published splits
labelling.py    from a layout's classes to a label space, by name
placement.py    which files DEST gets; image_files.py reads files of unknown origin within limits
destination.py  writes DEST, each file as a whole
report.py       the report at the end, inspection.py what it counts

A new layout is a new module and a row in FORMATS. The module has MARKS, names by which a source is recognised, and
`read(files, left_out) -> Layout`; camvid.py is a short one to copy.
"""

from seg_recipe.importers.formats import FORMATS, PAIRS
from seg_recipe.importers.recognition import looks_like, marks_of_others, recognise
from seg_recipe.importers.samples import Layout, Painted, Sample
from seg_recipe.importers.sources import LeftOut, SourceFile, open_source

__all__ = [
    "FORMATS",
    "PAIRS",
    "Layout",
    "LeftOut",
    "Painted",
    "Sample",
    "SourceFile",
    "looks_like",
    "marks_of_others",
    "open_source",
    "recognise",
]
