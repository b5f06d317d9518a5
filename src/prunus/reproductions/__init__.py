"""Every method carries its evidence: miniatures of the papers' claims, and the comparisons that they share."""
