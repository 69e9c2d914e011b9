"""The steps of scripts/finetune.py, in its order. Only these and the scripts are given a Recipe.

before.py     what is refused before anything is read
material.py   data, model, transforms and loss of a recipe
overview.py   the sheet of --preview, and what the training data hold
identity.py   whether this is the run that a checkpoint belongs to, and where it goes on
beside.py     the callbacks: console, curves, early stopping, Weights & Biases, Hub
trial.py      --check
ending.py     the best model, its report and its card (card.py, provenance.py)
"""
