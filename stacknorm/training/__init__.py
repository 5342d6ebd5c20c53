"""From a training config and labelled files to a bundle."""
