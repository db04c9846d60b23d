"""Reference of the training step: separate losses, and the first step of Adam."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dcgan_jax import augmentation, models, train_state
from dcgan_jax.configs import quickstart
from dcgan_jax.step_context import RngStream
from dcgan_jax.train_step import train_step

IMAGE_SHAPE = (8, 8, 3)


BATCH = 8


STATES = {}  # Initial states by config; they are not donated.


# Published formulas: (D's loss, G's loss) of real and fake logits.
LOSSES = {
    'non_saturating': (
        lambda r, f: -jnp.log(jax.nn.sigmoid(r)).mean() - jnp.log(1 - jax.nn.sigmoid(f)).mean(),
        lambda r, f: -jnp.log(jax.nn.sigmoid(f)).mean(),
    ),
    'least_squares': (
        lambda r, f: ((r - 1) ** 2).mean() / 2 + (f**2).mean() / 2,
        lambda r, f: ((f - 1) ** 2).mean() / 2,
    ),
    'wasserstein': (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    'hinge': (
        lambda r, f: jnp.maximum(0, 1 - r).mean() + jnp.maximum(0, 1 + f).mean(),
        lambda r, f: -f.mean(),
    ),
    'relativistic': (
        lambda r, f: -jnp.log(jax.nn.sigmoid(r - f)).mean(),
        lambda r, f: -jnp.log(jax.nn.sigmoid(f - r)).mean(),
    ),
}


def tiny(conditional=False, **changes):
    config = quickstart.get_config()
    config.update_order = 'alternating'
    config.conditional = conditional
    config.conv_impl = 'xla'  # Compiles faster.
    config.latent_dim = 6
    config.generator.update(base_size=2, base_features=8, features=(6,), strides=(2, 2), width=1.0)
    config.discriminator.update(features=(5, 7), strides=(2, 2), width=1.0)
    config.update(changes)
    networks = models.build(config, IMAGE_SHAPE, num_classes=3)
    key = str(config.to_dict())
    if key not in STATES:
        STATES[key] = jax.jit(lambda: train_state.create(config, networks, IMAGE_SHAPE))()
    state = STATES[key]
    real = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (BATCH, *IMAGE_SHAPE)), jnp.float32)
    return config, networks, state, real


def step(config):
    return jax.jit(lambda state, real, key: train_step(state, real, None, key, config))


def adam_first_step(params, grads, *, learning_rate, eps, b1=0.5, b2=0.999):
    """Return parameters after one step of Kingma & Ba 2015, algorithm 1, in float64."""

    def update(p, g):
        p, g = np.asarray(p, np.float64), np.asarray(g, np.float64)
        m, v = (1 - b1) * g, (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1), v / (1 - b2)
        return p - learning_rate * m_hat / (np.sqrt(v_hat) + eps)

    return jax.tree.map(update, params, grads)


def assert_trees_close(actual, expected, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, expected)


def apply(module, params, batch_stats, x, key=None):
    rngs = {} if key is None else {'dropout': key}
    out, new = module.apply(
        {'params': params, 'batch_stats': batch_stats},
        x,
        train=True,
        mutable=['batch_stats'],
        rngs=rngs,
    )
    return out, new.get('batch_stats', {})


def gradient_norms(discriminate, images):
    """Return |dD/dx|^2 of each image, computed one by one."""
    one = lambda image: jnp.sum(jax.grad(lambda x: discriminate(x[None])[0, 0])(image) ** 2)  # noqa: E731
    return jnp.stack([one(image) for image in images])


@dataclasses.dataclass(frozen=True)
class Plain:
    """Options of a training step that the reference reads instead of the config."""

    update_order: str = 'alternating'
    resample_latents: bool = False
    loss: str = 'non_saturating'
    rotation: float = 0.0
    rotation_generator: float = 0.0
    r1: float = 0.0
    r2: float = 0.0
    policy: tuple[str, ...] = ()
    dropout_rate: float = 0.0
    norm: str = 'batch'
    eps: float = 1e-5  # With 1e-8, rounding errors of small gradients would be amplified.

    def changes(self):
        """Return the options as config fields, for `tiny`."""
        return {
            'update_order': self.update_order,
            'resample_latents': self.resample_latents,
            'loss': {
                'name': self.loss,
                'rotation_weight': self.rotation,
                'generator_rotation_weight': self.rotation_generator,
            },
            'penalty': {'r1': self.r1, 'r2': self.r2},
            'augment': {'policy': self.policy},
            'discriminator': {'dropout_rate': self.dropout_rate, 'norm': self.norm},
            'optimizer': {
                'generator': {'eps': self.eps, 'learning_rate': 1e-3},
                'discriminator': {'eps': self.eps, 'learning_rate': 5e-4},
            },
        }


def rotation_loss(module, key, stream, policy):
    """Return a function that computes -E[log Q(rotation | rotated image)] and statistics."""
    rotation_key, augment_key, dropout = jax.random.split(jax.random.fold_in(key, stream), 3)
    rotations = [int(count) for count in jax.random.randint(rotation_key, (BATCH,), 0, 4)]
    assert len(set(rotations)) > 1

    def loss(params, stats, images):
        rotated = jnp.stack([jnp.rot90(x, n) for x, n in zip(images, rotations, strict=True)])
        _, new = module.apply(
            {'params': params, 'batch_stats': stats},
            augmentation.augment(augment_key, rotated, policy, 1.0),
            train=True,
            mutable=['batch_stats', 'rotation'],
            rngs={'dropout': dropout},
        )
        probabilities = jax.nn.softmax(new['rotation']['logits'][0])
        correct = [probabilities[index, count] for index, count in enumerate(rotations)]
        return -jnp.log(jnp.stack(correct)).mean(), new.get('batch_stats', {})

    return loss


def reference(plain, networks, state, real, key):
    """Compute one training step with separate forward passes for each loss."""
    g, d = networks.generator, networks.discriminator
    d_formula, g_formula = LOSSES[plain.loss]
    gp, gs = state.generator.params, state.generator.batch_stats
    dp, ds = state.discriminator.params, state.discriminator.batch_stats
    keys = [jax.random.fold_in(key, stream) for stream in RngStream]
    z = jax.random.normal(keys[0], (BATCH, 6))
    fake, fake_stats = apply(g, gp, gs, z)
    augment = lambda images, stream: augmentation.augment(  # noqa: E731
        jax.random.fold_in(key, stream), images, plain.policy, 1.0
    )
    of_real, of_fake = (
        rotation_loss(d, key, stream, plain.policy)
        for stream in (RngStream.ROTATION, RngStream.ROTATION_GENERATOR)
    )

    def d_loss(params):
        constant = jnp.asarray(np.asarray(fake))
        real_logits, stats = apply(d, params, ds, augment(real, RngStream.AUGMENT_REAL), keys[2])
        fake_logits, stats = apply(
            d, params, stats, augment(constant, RngStream.AUGMENT_FAKE), keys[3]
        )
        loss = d_formula(real_logits, fake_logits)
        if plain.rotation:
            value, stats = of_real(params, stats, real)
            loss += plain.rotation * value
        discriminate = lambda images: apply(d, params, ds, images, keys[2])[0]  # noqa: E731
        penalty = 0.0
        if plain.r1:
            penalty += plain.r1 / 2 * gradient_norms(discriminate, real).mean()
        if plain.r2:
            penalty += plain.r2 / 2 * gradient_norms(discriminate, fake).mean()
        return loss + penalty, (stats, loss)

    (_, (new_ds, d_value)), d_grads = jax.jit(jax.value_and_grad(d_loss, has_aux=True))(dp)
    new_dp = adam_first_step(dp, d_grads, learning_rate=5e-4, eps=plain.eps)

    alternating = {'alternating': True, 'simultaneous': False}[plain.update_order]
    fixed_d = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), new_dp if alternating else dp)
    fixed_stats = new_ds if alternating else ds
    if plain.resample_latents:
        z = jax.random.normal(keys[1], (BATCH, 6))
        gs = fake_stats

    def g_loss(params):
        images, stats = apply(g, params, gs, z)
        augmented = augment(
            images, RngStream.AUGMENT_GENERATOR if alternating else RngStream.AUGMENT_FAKE
        )
        logits, _ = apply(d, fixed_d, fixed_stats, augmented, keys[4] if alternating else keys[3])
        real_logits, _ = apply(
            d, fixed_d, fixed_stats, augment(real, RngStream.AUGMENT_REAL), keys[2]
        )
        value = of_fake(fixed_d, fixed_stats, images)[0] if plain.rotation_generator else 0.0
        return g_formula(real_logits, logits) + plain.rotation_generator * value, stats

    (g_value, new_gs), g_grads = jax.jit(jax.value_and_grad(g_loss, has_aux=True))(gp)
    new_gp = adam_first_step(gp, g_grads, learning_rate=1e-3, eps=plain.eps)
    return new_gp, new_gs, new_dp, new_ds, g_value, d_value
