"""Foreign data sets: what lies in a folder or a zip becomes samples (id, image, mask, group), and those the folders that training reads.

`open_source` lists a folder or a zip as it is, safely; a reader such as `face_synthetics` knows what the names mean; `destination` places
files so that nothing is ever half-written. Another layout is another function from files to samples.
"""

from seg_recipe.importers.face_synthetics import face_synthetics
from seg_recipe.importers.sources import LeftOut, Sample, SourceFile, open_source

__all__ = ["LeftOut", "Sample", "SourceFile", "face_synthetics", "open_source"]
