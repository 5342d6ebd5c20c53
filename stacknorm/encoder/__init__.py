"""One transformer: allowed architectures, safe loading, adapters, tokens, precision. Knows no stack."""
