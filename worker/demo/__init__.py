"""The demo: a week of headlines written for it, through a real broker and a real stack, the detector on defaults."""
