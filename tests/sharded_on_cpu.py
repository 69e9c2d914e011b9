"""finetune.py under FSDP on CPU processes: accelerate shards on accelerators only, and is made to think otherwise.

accelerate launch --config_file FILE tests/sharded_on_cpu.py RECIPE [--setting value ...]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from accelerate import state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

original = state.AcceleratorState.__init__


def sharded(self, *args, **options):
    original(self, *args, **options)
    if self.distributed_type != DistributedType.FSDP:
        self.fsdp_plugin = options.get("fsdp_plugin") or FullyShardedDataParallelPlugin()
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def shard():
    """From here on FSDP where the launcher asks for it."""
    state.AcceleratorState.__init__ = sharded


if __name__ == "__main__":
    shard()
    from scripts import finetune

    finetune.main()
