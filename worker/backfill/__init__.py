"""What an archive teaches the detector before it watches: baselines, the week, priors, how much bad news there is."""
