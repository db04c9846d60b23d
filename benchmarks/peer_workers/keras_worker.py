"""Benchmark worker of tf.keras: the same networks, batch size and update in a `@tf.function`."""

import argparse
import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
try:
    import tensorflow as tf
except ImportError:
    sys.exit('TensorFlow is not installed: see benchmarks/README.md')
from ml_collections import ConfigDict

from benchmarks import program
from benchmarks.peer_workers.serve import serve

L = tf.keras.layers


def _norm(config: ConfigDict) -> L.Layer:
    return L.BatchNormalization(momentum=config.norm_momentum, epsilon=config.norm_epsilon)


def generator(config: ConfigDict, latent_dim: int) -> tf.keras.Model:
    """Build `dcgan_jax.models.Generator` for the fields that the benchmarked configs use."""
    relu = L.ReLU if config.activation == 'relu' else lambda: L.LeakyReLU(config.leaky_slope)
    model = tf.keras.Sequential([L.Input((latent_dim,))])
    model.add(L.Dense(config.base_features * config.base_size**2, use_bias=config.use_bias))
    model.add(L.Reshape((config.base_size, config.base_size, config.base_features)))
    for layer in (_norm(config), relu()):
        model.add(layer)
    for index, stride in enumerate(config.strides):
        last = index == len(config.features)
        channels = 3 if last else config.features[index]
        model.add(
            L.Conv2DTranspose(
                channels, config.kernel_size, stride, padding='same', use_bias=config.use_bias
            )
        )
        for layer in [L.Activation('tanh')] if last else [_norm(config), relu()]:
            model.add(layer)
    return model


def discriminator(config: ConfigDict) -> tf.keras.Model:
    """Build `dcgan_jax.models.Discriminator` for the fields that the benchmarked configs use."""
    model = tf.keras.Sequential([L.Input(program.IMAGE_SHAPE)])
    for index, (channels, stride) in enumerate(zip(config.features, config.strides, strict=True)):
        model.add(
            L.Conv2D(channels, config.kernel_size, stride, padding='same', use_bias=config.use_bias)
        )
        if index > 0 and config.norm == 'batch':
            model.add(_norm(config))
        model.add(L.LeakyReLU(config.leaky_slope))
        if config.dropout_rate:
            model.add(L.Dropout(config.dropout_rate))
    model.add(L.Flatten())
    model.add(L.Dense(1, use_bias=config.use_bias))
    return model


def _optimizer(config: ConfigDict) -> tf.keras.optimizers.Adam:
    return tf.keras.optimizers.Adam(config.learning_rate, config.b1, config.b2, config.eps)


def main() -> None:
    """Serve training steps of one config."""
    parser = argparse.ArgumentParser()
    program.add_config_flags(parser)
    flags = parser.parse_args()
    config = program.load_config(flags.config, flags.set)
    g, d = generator(config.generator, config.latent_dim), discriminator(config.discriminator)
    g_optimizer = _optimizer(config.optimizer.generator)
    d_optimizer = _optimizer(config.optimizer.discriminator)
    shape = program.NUM_IMAGES, *program.IMAGE_SHAPE
    split = tf.cast(tf.random.uniform(shape, 0, 256, tf.int32), tf.uint8)
    alternating = config.update_order == 'alternating'

    @tf.function
    def step() -> tf.Tensor:
        indices = tf.random.uniform((config.batch_size,), 0, program.NUM_IMAGES, tf.int32)
        real = tf.cast(tf.gather(split, indices), tf.float32) / 127.5 - 1
        with tf.GradientTape() as g_tape:
            fake = g(tf.random.normal((config.batch_size, config.latent_dim)), training=True)
            with tf.GradientTape() as d_tape:
                real_logits = d(real, training=True)
                fake_logits = d(tf.stop_gradient(fake) if alternating else fake, training=True)
                loss = tf.reduce_mean(tf.nn.softplus(-real_logits))
                loss += tf.reduce_mean(tf.nn.softplus(fake_logits))
            d_gradients = d_tape.gradient(loss, d.trainable_variables)
            if alternating:
                d_optimizer.apply_gradients(zip(d_gradients, d.trainable_variables, strict=True))
                fake_logits = d(fake, training=True)
            generator_loss = tf.reduce_mean(tf.nn.softplus(-fake_logits))
        g_gradients = g_tape.gradient(generator_loss, g.trainable_variables)
        if not alternating:
            d_optimizer.apply_gradients(zip(d_gradients, d.trainable_variables, strict=True))
        g_optimizer.apply_gradients(zip(g_gradients, g.trainable_variables, strict=True))
        return generator_loss

    sizes = [sum(int(tf.size(v)) for v in m.trainable_variables) for m in (g, d)]
    serve(step, lambda loss: loss.numpy(), parameters=sizes, version=tf.__version__)


if __name__ == '__main__':
    sys.exit(main())
