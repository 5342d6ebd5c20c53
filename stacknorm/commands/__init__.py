"""The commands of `stacknorm`, one module each; what loads torch is imported inside them."""
