"""What is asked, in which language, and how answers are scored: prompts, languages, metrics."""
