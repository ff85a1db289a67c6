"""EB-VLA in PyTorch: backbone, energy head, MCMC sampler, landscape, training."""
