"""How the built-in base model is made: its text, tokenizer, training and score."""
