"""Foreign data sets: a folder, a zip or a tar becomes samples (id, image, mask, group), and those the folders that
training reads.

sources.py      lists a folder or an archive as it is, safely
formats.py      FORMATS, the layouts that are known, a module each, whose docstring shows it
samples.py      what a layout gives: a Layout of Samples
recognition.py  which layout a source has, by that set's own marks; what another one looks like
published.py    what makers call their splits
labelling.py    from a layout's classes to a label space, by name
placement.py    which file of DEST is made of what; image_files.py reads what may be broken or hostile
destination.py  places files so that nothing is ever half-written

Another layout is another module with MARKS and `read`, and a row in FORMATS.
"""

from seg_recipe.importers.formats import FORMATS, PAIRS
from seg_recipe.importers.recognition import looks_like, recognise
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
    "open_source",
    "recognise",
]
