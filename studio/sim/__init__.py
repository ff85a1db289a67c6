"""The simulated LIBERO benchmark: task catalogue, simulator, its process, cameras and expert."""
