"""Trains GANs and applies them: `python main.py --help`; see dcgan_jax/cli.py."""

from dcgan_jax import cli

if __name__ == '__main__':
    cli.run()
