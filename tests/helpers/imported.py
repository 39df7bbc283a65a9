"""What `commands` imports once for all of the commands, in their order: quiet first, as the commands are."""

from flix_lightning.common.cli import quiet_libraries

quiet_libraries()

import atexit  # noqa: E402

import pytest  # noqa: E402, F401
import transformers.models.byt5.tokenization_byt5  # noqa: E402
import transformers.models.t5.modeling_t5  # noqa: E402, F401
from wandb.sdk.data_types._private import MEDIA_TMP  # noqa: E402

# W&B makes this folder when it is imported, so here once for all: none of them may take it away at its end.
MEDIA_TMP._finalizer.detach()
atexit.unregister(MEDIA_TMP.cleanup)
