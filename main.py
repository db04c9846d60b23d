"""Entry point of the command line; see `python main.py --help` and dcgan_jax/cli.py."""

from dcgan_jax import __main__

if __name__ == '__main__':
    __main__.run()
