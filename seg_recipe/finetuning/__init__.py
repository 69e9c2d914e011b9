"""The steps of scripts/finetune.py, in its order. Only these and the scripts are given a Recipe.

preflight.py      what is refused before anything is read
components.py     the data, transforms, model and loss of a recipe
overview.py       the sheet of --preview, class frequencies and sizes of the training data
identity.py       whether a checkpoint is of this run, and where to resume
run_callbacks.py  console, plots, early stopping, Weights & Biases, Hub
dry_run.py        --check
ending.py         train, then save the best model, its report and its card (card.py, provenance.py)
"""
