"""From pictures of any origin to a folder of masks: find them, read them safely, run the model over them, write whole files only.

`inputs` lists what the command line named, `pictures` and `video` decode it, `outputs` is the resumable folder, `loop` keeps the model fed,
`exported` makes and runs an ONNX file.
"""
