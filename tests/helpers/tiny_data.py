"""The datasets of the tiny run (conftest.py)."""

TRAIN = "[{task:semantic_parsing,languages:[sw,en]},{task:ner,languages:[sw,yo]}]"
EVALUATE = "[{task:semantic_parsing,languages:[sw,en,yo]},{task:ner,languages:[sw,yo,zu]}]"
#: What a reader of XTREME-UP's layout finds for these two lists.
SEEN = [("semantic_parsing", "sw"), ("semantic_parsing", "en"), ("ner", "sw"), ("ner", "yo")]
UNSEEN = {("semantic_parsing", "yo"): "unseen_combination", ("ner", "zu"): "unseen_language"}
