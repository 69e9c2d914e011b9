"""The steps of scripts/finetune.py, in its order. Beside the scripts, this is the only place that knows what a recipe
is.

before.py: what is refused before anything is read. material.py: the splits and what makes samples of them.
identity.py: whether a run goes on, and from where. beside.py: what goes on beside the training. trial.py: what --check
tries. ending.py: the best model with all that lies beside it.
"""
