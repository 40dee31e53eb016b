"""One training loop for every objective: generative models, classifiers, alignments."""
