"""Base models: loading, conversion, vocabulary, and generation of texts."""
