"""Deep convolutional GANs on CIFAR-10 in JAX and Flax."""
