"""Turn texts into token ids."""

import copy
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from flix_lightning.common.errors import UserError
from flix_lightning.models.chat_template import answer_start, render

# Stands between input and target of a decoder-only model, which reads both as one text.
DECODER_ONLY_SEPARATOR = "\n"

#: Characters that are read for each token of the longest length, more than a token of any text stands for.
#: The rest is cut before tokenizing, as tokenizing a line of megabytes takes hundreds of times its size.
CHARACTERS_PER_TOKEN = 64


@dataclass(frozen=True)
class Tokenization:
    """How texts become token ids. What is too long loses its end, whatever the tokenizer's config says.

    Attributes:
        tokenizer: The base model's.
        is_encoder_decoder: Whether the base model is. Inputs of other models end in a separator.
        max_input_length: Tokens of the prompted input, with special tokens and separator.
        max_target_length: Tokens of the target, with the eos that ends every target.
        chat_template: Whether the input becomes a user's message in the tokenizer's chat template.

    Raises:
        UserError: The tokenizer has no eos; or its chat template leaves no room for an input.
    """

    tokenizer: PreTrainedTokenizerBase
    is_encoder_decoder: bool
    max_input_length: int
    max_target_length: int
    chat_template: bool = False

    def __post_init__(self):
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                f"the tokenizer {self.tokenizer.name_or_path!r} has no eos token to end targets with"
            )
        own = copy.copy(self.tokenizer)  # so that the caller's stays as it is
        own.truncation_side = "right"
        object.__setattr__(self, "tokenizer", own)

    @cached_property
    def fingerprint(self) -> str:
        """A SHA-256 (hex) of the tokenizer's files."""
        if self.tokenizer.is_fast:
            # The files hold how the last call padded and truncated, which does not belong to the tokenizer.
            self.tokenizer.backend_tokenizer.no_padding()
            self.tokenizer.backend_tokenizer.no_truncation()
        total = hashlib.sha256()
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return total.hexdigest()

    def inputs(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the ids of prompted inputs, and for each whether it was cut."""
        if self.chat_template:
            return self._messages(texts)
        separator = (
            [] if self.is_encoder_decoder else self._encode([DECODER_ONLY_SEPARATOR], special=False)[0]
        )
        room = self.max_input_length - len(separator)
        if room < 1:
            raise UserError(
                f"data.max_input_length={self.max_input_length}: what stands between input and answer takes "
                f"{len(separator)} tokens by itself"
            )
        ids, heads, cut = self._encode_heads(texts, room, special=True)
        for row in (row for row, is_cut in enumerate(cut) if is_cut):
            # Only the tokenizer knows which special tokens must stay at the end.
            ids[row] = self.tokenizer(heads[row], truncation=True, max_length=room)["input_ids"]
        return [one + separator for one in ids] if separator else ids, cut

    def _messages(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        room, tokenizer = self.max_input_length, self.tokenizer
        frame, start = self._encode([render(tokenizer, ""), answer_start(tokenizer)], special=False)
        if len(frame) >= room:
            raise UserError(
                f"data.max_input_length={room}: the model's chat template takes {len(frame)} tokens by itself"
            )
        ids, _, cut = self._encode_heads(texts, room, special=False, form=partial(render, tokenizer))
        for row in (row for row, is_cut in enumerate(cut) if is_cut):
            ids[row] = [*ids[row][: min(len(ids[row]), room) - len(start)], *start]
        return ids, cut

    def targets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the ids of targets, each ending in eos, and for each whether it was cut."""
        room = self.max_target_length - 1
        ids, _, cut = self._encode_heads(texts, room, special=False)
        return [[*one[:room], self.tokenizer.eos_token_id] for one in ids], cut

    def _encode_heads(
        self, texts: Sequence[str], room: int, special: bool, form: Callable[[str], str] = str
    ) -> tuple[list[list[int]], list[str], list[bool]]:
        """Return the ids of each text's head in a form, the heads, and whether each text is too long."""
        heads = [text[: room * CHARACTERS_PER_TOKEN] for text in texts]
        ids = self._encode(list(map(form, heads)), special)
        triples = zip(ids, heads, texts, strict=True)
        return ids, heads, [len(one) > room or len(head) < len(text) for one, head, text in triples]

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        options = dict.fromkeys(("return_attention_mask", "return_token_type_ids", "verbose"), False)
        return self.tokenizer(texts, add_special_tokens=special, **options)["input_ids"]
