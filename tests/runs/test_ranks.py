"""FLix's table of ranks is said once: the LoRAs that are to match FLix follow from it, however it is said."""

import pytest
from tiny_data import EVALUATE, TRAIN
from tiny_runs import config

from flix_lightning.common.errors import UserError
from flix_lightning.runs.run import Run

FAMILY = "family:{sw:Bantu,yo:Yoruboid,zu:Bantu,en:Germanic}"
TRAINED = TRAIN.replace("]}", f"],{FAMILY}}}")
EVALUATED = EVALUATE.replace("]}", f"],{FAMILY}}}")
#: TRAIN has two tasks, three languages and three families.
SETTINGS = {
    "": (6, 2 * 4 + 3 * 2),
    "flix.ranks.language=1": (5, 2 * 4 + 3),
    "mixture.ranks.language=1": (5, 2 * 4 + 3),
    "mixture.ranks.language=0": (4, 2 * 4),
    "+flix.ranks.family=2": (8, 2 * 4 + 3 * 2 + 3 * 2),
    "+mixture.ranks.family=2": (8, 2 * 4 + 3 * 2 + 3 * 2),
    "+mixture.ranks.family=2 +flix.ranks.family=1": (7, 2 * 4 + 3 * 2 + 3),
    "+mixture.ranks.family={Bantu:5,default:1} flix.ranks.task=3": (10, 2 * 3 + 3 * 2 + 5 + 1 + 1),
    "mixture.ranks.task={ner:1,default:4}": (6, 1 + 4 + 3 * 2),
}


def resolved(tiny, *overrides):
    families = [f"mixture.train={TRAINED}", f"mixture.evaluate={EVALUATED}"]
    return Run.resolve(config([*tiny, "flix.dropout=0", "flix.controls=[]", *families, *overrides]))


def active(run):
    """The largest active rank, added up dataset by dataset."""
    return max(
        sum(run.ranks.get(":".join(item), 0) for item in one.attributes.items()) for one in run.mixture.train
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_active_and_total_ranks_agree(setting, tiny):
    flix, compute, param = (
        resolved(tiny, f"flix={method}", *setting.split())
        for method in ("flix", "compute_matched", "param_matched")
    )
    assert (active(flix), sum(flix.ranks.values())) == SETTINGS[setting]
    assert compute.ranks == {"shared:all": active(flix)}
    assert param.ranks == {"shared:all": sum(flix.ranks.values())}
    assert compute.kinds == ["shared"]


def test_flix_shared_is_the_papers(tiny):
    kinds = {"shared": 4, "task": 1, "language": 1}
    run = resolved(tiny, "flix=flix_shared")
    assert {feature: kinds[feature.partition(":")[0]] for feature in run.ranks} == run.ranks
    more = resolved(tiny, "flix=flix_shared", "+mixture.ranks.family=2")
    assert active(more) == active(resolved(tiny, "+mixture.ranks.family=2")) == 8


def test_a_lora_of_any_rank(tiny):
    lora = resolved(tiny, "flix=compute_matched", "flix.lora_rank=3")
    assert lora.ranks == {"shared:all": 3}
    assert lora.id != resolved(tiny, "flix=compute_matched").id


def test_a_lora_has_no_kinds_but_its_own(tiny):
    with pytest.raises(UserError, match=r"flix\.controls names the kind 'task'; this run has shared"):
        resolved(tiny, "flix=compute_matched", "flix.controls=[[task]]")
