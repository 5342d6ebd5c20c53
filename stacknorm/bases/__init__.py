"""Where pretrained transformers come from, and proof that their files are the ones meant."""
