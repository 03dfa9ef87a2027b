"""Many runs: which they are, how far each is, and the engines that train them. A sweep keeps no state of its own"""
