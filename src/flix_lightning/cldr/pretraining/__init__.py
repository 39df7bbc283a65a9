"""How the built-in base model is made: its text, its tokenizer, its training, its score."""
