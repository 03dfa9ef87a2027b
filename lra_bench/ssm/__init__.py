"""State space mathematics: recurrences, convolution kernels, HiPPO and PTD, each with a slow oracle for the tests."""
