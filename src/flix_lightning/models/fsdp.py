"""A base model whose layers are spread over the devices, for one that is too large to be on each."""

import logging

from lightning.pytorch.strategies import DDPStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from flix_lightning.adapter.layers import find_layers

log = logging.getLogger(__name__)


class ShardedStrategy(DDPStrategy):
    """DDP of the adapter, which every device has whole, over a base of which each has a part (FSDP2).

    A layer's weights are gathered from all devices when it runs, and let go after it. Embeddings and the
    head, which would be gathered all the time, stay whole. As the pools do too, they may be of another type
    than the base, and a checkpoint is that of one device.
    """

    def model_to_device(self) -> None:
        """Spread the layers, one after another, so that no device ever holds all; move what is left."""
        model, pools = self.lightning_module.model, set(self.lightning_module.adapter.parameters())
        layers = find_layers(model, "trainer=fsdp")
        if not isinstance(layers[0], FSDPModule):
            mesh = init_device_mesh(self.root_device.type, (self.world_size,))
            for layer in layers:
                fully_shard(layer, mesh=mesh, ignored_params=pools)
            # Generation goes on until all processes are done, as each needs the others' parts.
            model._is_fsdp_managed_module = True
            parts = [part for layer in layers for part in layer.parameters() if part not in pools]
            log.info(
                "%d layers are spread over %d devices: each holds %s of their %s parameters",
                len(layers),
                self.world_size,
                f"{sum(part.to_local().numel() for part in parts):,}",
                f"{sum(part.numel() for part in parts):,}",
            )
        spread = [name for name, part in self.model.named_parameters() if isinstance(part, DTensor)]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self.model, spread)
        super().model_to_device()
