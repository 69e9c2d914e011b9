"""The same results sooner: numba on a CPU, and modules of transformers made quicker."""
