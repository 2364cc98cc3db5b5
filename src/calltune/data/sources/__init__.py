"""Sources of datasets: the model hub, files on this machine, and the package bfcl-eval."""
