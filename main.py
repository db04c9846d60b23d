"""Trains GANs and applies them: `python main.py --help`; see dcgan_jax/cli.py."""

from absl import app, flags

from dcgan_jax import cli

if __name__ == '__main__':
    flags.adopt_module_key_flags(cli)  # So that --help lists them.
    app.run(cli.main, flags_parser=cli.parse)
