"""Tokenizers: from files or an object to what each token is written as and spells."""
