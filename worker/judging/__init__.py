"""The detector on streams whose truth is known, beside what its rules promise."""
