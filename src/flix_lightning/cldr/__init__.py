"""The built-in benchmark `cldr`: five multilingual tasks made from Unicode CLDR, and its base model.

`python -m flix_lightning.cldr` shows samples; `python -m flix_lightning.cldr.pretraining` makes the base.
"""
