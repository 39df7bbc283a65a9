"""Base models: loading, conversion, vocabulary, fast products, and generation of texts."""
