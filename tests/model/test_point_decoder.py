# SPDX-License-Identifier: Apache-2.0
"""Each point reads its own token and itself, nothing else."""

from __future__ import annotations

import torch

from cross4d_jepa_ros.model.network import Network


def test_a_point_reads_its_token_and_itself(network: Network) -> None:
    draw = torch.Generator().manual_seed(0)
    token, point = torch.randn(3, 12, generator=draw), torch.randn(5, 6, generator=draw)
    patch_of_point = torch.tensor([2, 0, 0, 1, 2])
    decoder = network.decoder
    before = point.clone()
    found = decoder(token, point, patch_of_point)
    assert torch.equal(point, before)
    for i, patch in enumerate(patch_of_point.tolist()):
        hidden = decoder.skip(point[i]) + decoder.token_in(token[patch])
        expected = decoder.out(hidden.clamp_min(0))
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)


def test_no_points(network: Network) -> None:
    none = network.decoder(torch.zeros(0, 12), torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
    assert none.shape == (0, 6)
