"""A model's chat template around the prompt, against Transformers' own rendering of the conversation."""

import shutil
from dataclasses import dataclass

import pytest
from families import GEMMA3, LLAMA, LLAMA_PROJECTIONS, Family
from tiny_runs import do
from transformers import AutoTokenizer, Gemma3TextConfig, Qwen3Config

from flix_lightning.common.errors import UserError
from flix_lightning.data.tokenization import Tokenization
from flix_lightning.inference import Predictor
from flix_lightning.models import base as models
from flix_lightning.models import vocabulary
from flix_lightning.runs.run import Run

# What the models' own templates write for a question and an answer, without tools and system messages.
GEMMA = (
    "{{ bos_token }}{% for one in messages %}"
    "<start_of_turn>{{ 'model' if one.role == 'assistant' else one.role }}\n"
    "{{ one.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
QWEN = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n"
    "{% if one.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


@dataclass(frozen=True)
class Chat(Family):
    """A family of instruction-tuned models."""

    template: str | None = None

    def tokenizer(self):
        tokenizer = super().tokenizer()
        tokenizer.add_special_tokens({"additional_special_tokens": [f"<{name}>" for name in self.special]})
        tokenizer.chat_template = self.template
        return tokenizer


def gemma(template=GEMMA):
    special = ("pad", "eos", "bos", "start_of_turn", "end_of_turn")
    return Chat(Gemma3TextConfig, GEMMA3, LLAMA_PROJECTIONS, special, "<bos> $A", template=template)


CHATS = {
    "gemma3": gemma(),
    "qwen3": Chat(
        Qwen3Config, LLAMA, LLAMA_PROJECTIONS, ("pad", "eos", "|im_start|", "|im_end|"), template=QWEN
    ),
}
TEXTS = ["parse Swahili: tarehe 3", "a\nb", "ቤት 12", ""]


@pytest.fixture(params=CHATS)
def folder(request, tmp_path):
    return CHATS[request.param].save(tmp_path / request.param)


def conversation(folder, text, answer):
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, enable_thinking=False)
    return found[: -len(tokenizer("\n", add_special_tokens=False)["input_ids"])]


def test_input_and_target_are_the_conversation_that_the_model_knows(folder):
    base = models.load(str(folder), "main", "float32", chat_template=True)
    tokenization = Tokenization(base.tokenizer, False, 96, 16, chat_template=True)
    inputs, cut = tokenization.inputs(TEXTS)
    [answer], _ = tokenization.targets(["jibu"])
    assert not any(cut)
    for text, ids in zip(TEXTS, inputs, strict=True):
        assert ids + answer == conversation(folder, text, "jibu")
    assert base.model.generation_config.eos_token_id == answer[-1]


@pytest.mark.parametrize("length", [60, 61, 70])
def test_a_long_input_loses_its_own_end_and_nothing_of_the_template(folder, length):
    tokenizer = models.load(str(folder), "main", "float32", chat_template=True).tokenizer
    tokenization = Tokenization(tokenizer, False, length, 16, chat_template=True)
    for text in ("x" * 200, "x" * 2**20):
        [ids], [cut] = tokenization.inputs([text])
        kept = tokenizer.decode(ids).count("x")
        assert cut
        assert len(ids) == length
        assert ids == conversation(folder, "x" * kept, "")[: len(ids)]


def test_a_run_with_the_template_is_another_run_and_its_predictor_uses_it(folder, tiny, tmp_path):
    own = [*tiny, f"model.pretrained={folder}", "data.max_input_length=64", "flix.controls=[]"]
    runs = [
        Run.open(do([*own, f"model.chat_template={template}"], tmp_path)) for template in ("false", "true")
    ]
    assert len({run.id for run in runs}) == 2
    for run in runs:
        predictor = Predictor(run)
        [ids], _ = predictor._tokenization.inputs(["habari"])
        expected = conversation(folder, "habari", "")
        assert (ids == expected[: len(ids)]) == run.cfg.model.chat_template


def test_an_edited_template_is_another_base_where_it_is_used(folder, tmp_path):
    edited = tmp_path / "edited"
    shutil.copytree(folder, edited)
    before = [models.fingerprint(str(edited), "main", used) for used in (False, True)]
    (template,) = edited.glob("*.jinja")
    template.write_text(template.read_text() + " ")
    after = [models.fingerprint(str(edited), "main", used) for used in (False, True)]
    assert after[0] == before[0] == models.fingerprint(str(folder), "main")
    assert after[1] != before[1]


def test_a_cut_vocabulary_keeps_the_template(folder, tmp_path):
    small = vocabulary.cut(str(folder), "main", "float32", TEXTS, "these", tmp_path / "models", True)
    base = models.load(str(small), "main", "float32", chat_template=True)
    tokenization = Tokenization(base.tokenizer, False, 96, 16, chat_template=True)
    for text, ids in zip(TEXTS, tokenization.inputs(TEXTS)[0], strict=True):
        whole = AutoTokenizer.from_pretrained(folder).decode(conversation(folder, text, ""))
        assert whole.startswith(base.tokenizer.decode(ids))


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (None, "has no chat template; take an instruction-tuned model"),
        (GEMMA.replace("<end_of_turn>", "."), "'.' after an answer; a special token is needed"),
        ("{{ raise_exception('Only one turn') }}", "fails: Only one turn"),
    ],
)
def test_a_template_that_does_not_serve_is_one_line(template, named, tmp_path):
    folder = gemma(template).save(tmp_path / "base")
    with pytest.raises(UserError, match=named) as raised:
        models.load(str(folder), "main", "float32", chat_template=True)
    assert str(raised.value).startswith("model.chat_template=true: ")
    assert "\n" not in str(raised.value)


def test_no_room_beside_the_template_is_one_line(folder):
    tokenizer = models.load(str(folder), "main", "float32", chat_template=True).tokenizer
    with pytest.raises(UserError, match=r"data\.max_input_length=8: the model's chat template takes"):
        Tokenization(tokenizer, False, 8, 16, chat_template=True).inputs(["a"])
