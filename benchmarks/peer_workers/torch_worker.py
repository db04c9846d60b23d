"""Benchmark worker of PyTorch: the same networks, batch size and update.

The code is idiomatic PyTorch; the data set is one tensor. It runs eagerly, or compiled with
channels last, optionally with AMP.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

try:
    import torch
except ImportError:
    sys.exit('PyTorch is not installed: see benchmarks/README.md')
import numpy as np
from ml_collections import ConfigDict
from torch import nn
from torch.nn import functional

from benchmarks import program
from benchmarks.peer_workers.serve import serve
from dcgan_jax import weights


class Generator(nn.Module):
    """`dcgan_jax.models.Generator` for the fields that the benchmarked configs use."""

    def __init__(self, config: ConfigDict, latent_dim: int):
        """Build the layers of `config.generator`."""
        super().__init__()
        self.base = config.base_features, config.base_size, config.base_size
        size = config.base_features * config.base_size**2
        self.project = nn.Linear(latent_dim, size, bias=config.use_bias)
        layers = [_batch_norm(config.base_features, config), _activation(config)]
        previous = config.base_features
        for index, stride in enumerate(config.strides):
            last = index == len(config.features)
            channels = 3 if last else config.features[index]
            layers.append(_conv_transpose(previous, channels, stride, config))
            layers += [nn.Tanh()] if last else [_batch_norm(channels, config), _activation(config)]
            previous = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Map latents [B, latent_dim] to images [B, 3, H, W]."""
        return self.layers(self.project(z).view(-1, *self.base))


def load_generator(path: Path) -> Generator:
    """Return a generator with the variables of `generator.safetensors`, in evaluation mode."""
    variables, metadata = weights.deserialize(path.read_bytes())
    params, statistics = variables['params'], variables['batch_stats']
    run = ConfigDict(metadata['config'])
    config = run.generator
    config.features = [len(params[f'norm_{i}']['scale']) for i in range(len(config.features))]
    config.base_features = len(params['project_norm']['scale'])
    module = Generator(config, run.latent_dim)
    kernel = params['project']['kernel'].reshape(run.latent_dim, -1, config.base_features)
    state = {'project.weight': kernel.transpose(2, 1, 0).reshape(-1, run.latent_dim)}
    norms = ['project_norm', *(f'norm_{i}' for i in range(len(config.features)))]
    for index, norm in enumerate(norms):
        name = f'layers.{3 * index}'
        state[f'{name}.weight'], state[f'{name}.bias'] = (
            params[norm][part] for part in ('scale', 'bias')
        )
        state[f'{name}.running_mean'], state[f'{name}.running_var'] = (
            statistics[norm][part] for part in ('mean', 'var')
        )
        kernel = params[f'conv_{index}']['kernel'][::-1, ::-1].transpose(2, 3, 0, 1)
        state[f'layers.{3 * index + 2}.weight'] = kernel
    tensors = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in state.items()}
    missing = module.load_state_dict(tensors, strict=False).missing_keys
    if wrong := [name for name in missing if not name.endswith('num_batches_tracked')]:
        raise ValueError(f'{path} has no {wrong}')
    return module.eval()


class Discriminator(nn.Module):
    """`dcgan_jax.models.Discriminator` for the fields that the benchmarked configs use."""

    def __init__(self, config: ConfigDict):
        """Build the layers of `config.discriminator`."""
        super().__init__()
        layers, previous, side = [], 3, program.IMAGE_SHAPE[0]
        for index, (channels, stride) in enumerate(
            zip(config.features, config.strides, strict=True)
        ):
            layers.append(_conv(previous, channels, stride, config))
            if index > 0 and config.norm == 'batch':
                layers.append(_batch_norm(channels, config))
            layers.append(nn.LeakyReLU(config.leaky_slope))
            if config.dropout_rate:
                layers.append(nn.Dropout(config.dropout_rate))
            previous, side = channels, side // stride
        layers += [nn.Flatten(), nn.Linear(previous * side**2, 1, bias=config.use_bias)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images [B, 3, H, W] to logits [B, 1]."""
        return self.layers(images)


def _conv(inputs: int, outputs: int, stride: int, config: ConfigDict) -> nn.Conv2d:
    padding = (config.kernel_size - 1) // 2
    return nn.Conv2d(inputs, outputs, config.kernel_size, stride, padding, bias=config.use_bias)


def _conv_transpose(inputs: int, outputs: int, stride: int, config: ConfigDict) -> nn.Module:
    k = config.kernel_size
    padding = (k - 1) // 2 if k % 2 else (k - stride) // 2
    extra = stride - 1 if k % 2 else 0
    return nn.ConvTranspose2d(inputs, outputs, k, stride, padding, extra, bias=config.use_bias)


def _batch_norm(channels: int, config: ConfigDict) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, config.norm_epsilon, 1 - config.norm_momentum)


def _activation(config: ConfigDict) -> nn.Module:
    return nn.ReLU() if config.activation == 'relu' else nn.LeakyReLU(config.leaky_slope)


def _optimizer(network: nn.Module, config: ConfigDict) -> torch.optim.Adam:
    betas = config.b1, config.b2
    return torch.optim.Adam(network.parameters(), config.learning_rate, betas, config.eps)


def _autocast(network: nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return network(x)

    return lambda x: forward(x).float()


def main() -> None:
    """Serve training steps of one config."""
    parser = argparse.ArgumentParser()
    program.add_config_flags(parser)
    parser.add_argument('--compile', action='store_true')
    parser.add_argument(
        '--amp', action='store_true', help='run the networks in bfloat16 (autocast)'
    )
    flags = parser.parse_args()
    config = program.load_config(flags.config, flags.set)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # As in pytorch/examples/dcgan.

    generator = Generator(config.generator, config.latent_dim).to(device)
    discriminator = Discriminator(config.discriminator).to(device)
    optimizers = [
        _optimizer(generator, config.optimizer.generator),
        _optimizer(discriminator, config.optimizer.discriminator),
    ]
    sizes = [sum(p.numel() for p in network.parameters()) for network in (generator, discriminator)]
    shape = program.NUM_IMAGES, *program.IMAGE_SHAPE
    split = torch.randint(0, 256, shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)
    if not flags.compile:
        split = split.contiguous()
    g, d = generator, discriminator
    if flags.compile:
        g = torch.compile(generator.to(memory_format=torch.channels_last))
        d = torch.compile(discriminator.to(memory_format=torch.channels_last))
    if flags.amp:
        g, d = _autocast(g, device), _autocast(d, device)
    alternating = config.update_order == 'alternating'

    def step() -> torch.Tensor:
        batch = split[torch.randint(0, len(split), (config.batch_size,), device=device)]
        real = batch.float() / 127.5 - 1
        fake = g(torch.randn(config.batch_size, config.latent_dim, device=device))
        optimizers[1].zero_grad(set_to_none=True)
        if alternating:
            loss = (
                functional.softplus(-d(real)).mean() + functional.softplus(d(fake.detach())).mean()
            )
            loss.backward()
            optimizers[1].step()
            optimizers[0].zero_grad(set_to_none=True)
            generator_loss = functional.softplus(-d(fake)).mean()
            generator_loss.backward()
        else:  # Both losses share one forward pass of D, as in the Keras tutorial.
            logits = d(fake)
            loss = functional.softplus(-d(real)).mean() + functional.softplus(logits).mean()
            generator_loss = functional.softplus(-logits).mean()
            parameters = list(discriminator.parameters())
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True)
            optimizers[0].zero_grad(set_to_none=True)
            generator_loss.backward(inputs=list(generator.parameters()))
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizers[1].step()
        optimizers[0].step()
        return generator_loss

    serve(step, lambda loss: loss.item(), parameters=sizes, version=torch.__version__)


if __name__ == '__main__':
    sys.exit(main())
