"""Featurized Low-Rank Mixtures (FLix) on PyTorch Lightning."""
