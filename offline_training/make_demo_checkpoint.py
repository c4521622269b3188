# SPDX-License-Identifier: Apache-2.0
"""Make the checkpoint that ships: untrained weights of size nano, to try everything but quality.

    python -m offline_training.make_demo_checkpoint config/demo.safetensors --seed 0

The same seed gives the same file. Its three colours are the principal components of the point
embeddings of a few synthetic streets, so that they show structure from the first sweep on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cross4d_jepa_ros.model.checkpoint import Contract, save_checkpoint
from cross4d_jepa_ros.model.config import load_model_config
from cross4d_jepa_ros.model.network import Network
from cross4d_jepa_ros.model.tokenizer import input_features
from cross4d_jepa_ros.shared_files import shared_file

CONFIG = 'config/models/nano.yaml'
STREETS = 3
POINTS = 20000
PALETTE = {
    'road': (125, 75, 130),
    'sidewalk': (240, 60, 225),
    'building': (95, 95, 105),
    'vegetation': (85, 150, 45),
    'pole': (235, 215, 90),
    'car': (25, 60, 200),
    'person': (225, 35, 60),
}


def make_demo_checkpoint(path: Path, seed: int) -> None:
    """Write the untrained nano network to `path`.

    Raises:
        OSError: The disk refuses.

    """
    config = load_model_config(shared_file(CONFIG))
    network = Network(config, len(PALETTE))
    network.initialise(torch.Generator().manual_seed(seed))
    draw = np.random.default_rng(seed)
    with torch.inference_mode():
        streets = [_embed(network.eval(), *street_points(draw)) for _ in range(STREETS)]
        network.colour_basis.fit(torch.cat(streets))
        # Random logits share a large mean, which would give nearly every point the same class.
        head = network.segmentation
        assert head is not None
        head.bias.copy_(-(head.weight @ network.colour_basis.mean))
        # Coarser than what linear algebra of another machine differs by.
        for fitted in (head.bias, *network.colour_basis.buffers()):
            fitted.copy_(fitted.mul(1e3).round().div(1e3))
    contract = Contract(
        model=config,
        features=input_features(config),
        base_height_m=0.0,
        class_names=tuple(PALETTE),
        palette=tuple(PALETTE.values()),
        training={
            'kind': 'untrained',
            'seed': seed,
            'command': f'python -m offline_training.make_demo_checkpoint {path.name} --seed {seed}',
        },
    )
    save_checkpoint(path, contract, network)


def street_points(draw: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scatter points over a street: ground, two rows of house fronts, boxes and poles.

    Returns:
        (N, 3) m, base frame on the ground, and (N, 4) colour with its flag; half the points have
        one.

    """
    sight = 50 * draw.random((POINTS, 1)) ** 2
    azimuth = draw.uniform(-np.pi, np.pi, (POINTS, 1))
    ground = np.hstack((sight * np.cos(azimuth), sight * np.sin(azimuth), 0 * sight))
    side = draw.choice([-1.0, 1.0], (POINTS, 1)) * draw.uniform(8, 14)
    along = draw.uniform(-50, 50, (POINTS, 1))
    fronts = np.hstack((along, side, 8 * draw.random((POINTS, 1))))
    near = [draw.uniform((-30, -6, 0), (30, 6, 0)) for _ in range(12)]
    sizes = [(4.5, 1.8, 1.5)] * 6 + [(0.2, 0.2, 4.0)] * 4 + [(0.5, 0.5, 1.75)] * 2
    things = [
        place + draw.random((POINTS // 24, 3)) * size
        for place, size in zip(near, sizes, strict=True)
    ]
    xyz = np.vstack((ground, fronts, *things)) + draw.normal(0, 0.02, 3)
    rgb = np.hstack((draw.random((len(xyz), 3)), np.ones((len(xyz), 1))))
    rgb[xyz[:, 0] < 0] = 0
    return xyz.astype(np.float32), rgb.astype(np.float32)


def _embed(network: Network, xyz: NDArray[np.float32], rgb: NDArray[np.float32]) -> torch.Tensor:
    patches = network.tokenizer.grid.group(torch.from_numpy(xyz))
    colour = torch.from_numpy(rgb)[patches.point]  # (K, 4)
    intensity = colour[:, :3].mean(1)  # (K,)
    token, point = network.tokenizer(patches, intensity, colour)  # (M, D), (K, C)
    token = network.encoder(token, patches.cell, patches.centre)  # (M, D)
    embedding: torch.Tensor = network.decoder(token, point, patches.patch_of_point)  # (K, C)
    return embedding


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='file to write')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args()
    make_demo_checkpoint(arguments.out, arguments.seed)
    print(f'{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB, untrained')


if __name__ == '__main__':
    main()
