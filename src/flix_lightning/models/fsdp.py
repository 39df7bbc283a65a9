"""A base model whose layers are sharded over the devices, if it is too large for each."""

import logging

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flix_lightning.adapter.layers import find_layers

log = logging.getLogger(__name__)


class ShardedStrategy(DDPStrategy):
    """DDP of the adapter, which every device holds, over a base that is sharded by FSDP2.

    A layer's weights are gathered when it runs, and freed after it. Embeddings and the head stay whole: they
    would be gathered all the time. As the pools stay whole too, they may have another type than the base, and
    a checkpoint is the same as on one device.
    """

    def model_to_device(self) -> None:
        """Shard the layers one by one, so that no device ever holds all of them; move the rest."""
        model, pools = self.lightning_module.model, set(self.lightning_module.adapter.parameters())
        layers = find_layers(model, "trainer=fsdp")
        if not isinstance(layers[0], FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            for layer in layers:
                fully_shard(layer, mesh=mesh, ignored_params=pools)
            # Makes `generate` go on until all processes are done, as each needs the others' shards.
            model._is_fsdp_managed_module = True
            shards = [shard for layer in layers for shard in layer.parameters() if shard not in pools]
            own, total = sum(one.to_local().numel() for one in shards), sum(one.numel() for one in shards)
            message = "%d layers are sharded over %d devices: each holds %s of their %s parameters"
            log.info(message, len(layers), self.world_size, f"{own:,}", f"{total:,}")
        sharded = [name for name, weight in self.model.named_parameters() if isinstance(weight, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, sharded)
        super().model_to_device()
