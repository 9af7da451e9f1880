"""How the bundled pair of language models was made: text, tokenizer, training, measurements, model cards."""
