# SPDX-License-Identifier: Apache-2.0
"""DINOv2 and DINOv3 as teachers: tiny drawn checkpoints through the real loading path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)

from offline_training.teachers import BadTeacher, load_teacher

SIZES = {'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'image_size': 56}
# Without these the norm has no effect that could be told from none.
NORM_SCALE, NORM_SHIFT = 3.0, 0.5
PREFIX = {'dinov2': 1, 'dinov2_with_registers': 5, 'dinov3_vit': 4}
PATCH = {'dinov2': 14, 'dinov2_with_registers': 14, 'dinov3_vit': 16}
TYPES = sorted(PATCH)


def make(model_type: str) -> torch.nn.Module:
    """Draw a tiny network."""
    torch.manual_seed(0)
    if model_type == 'dinov2':
        return Dinov2Model(Dinov2Config(patch_size=14, **SIZES))
    if model_type == 'dinov2_with_registers':
        return Dinov2WithRegistersModel(
            Dinov2WithRegistersConfig(patch_size=14, num_register_tokens=4, **SIZES)
        )
    return DINOv3ViTModel(
        DINOv3ViTConfig(patch_size=16, num_register_tokens=3, intermediate_size=64, **SIZES)
    )


@pytest.fixture(scope='module')
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save one checkpoint of each type."""
    saved = {}
    for model_type in TYPES:
        network = make(model_type)
        norm = network.norm if model_type == 'dinov3_vit' else network.layernorm
        torch.nn.init.constant_(norm.weight, NORM_SCALE)
        torch.nn.init.constant_(norm.bias, NORM_SHIFT)
        saved[model_type] = tmp_path_factory.mktemp(model_type) / 'weights'
        network.save_pretrained(saved[model_type])
    return saved


def copied(folder: Path, target: Path) -> Path:
    """Copy a checkpoint to damage it."""
    return Path(shutil.copytree(folder, target / 'copy'))


def states(folder: Path, image: np.ndarray) -> list[Tensor]:
    """Let the network itself see an image of its own patch size: every layer's tokens, normed."""
    network = AutoModel.from_pretrained(folder).eval()
    rgb = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    x = (rgb - mean) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        found = network(pixel_values=x, output_hidden_states=True)
    return [*found.hidden_states, found.last_hidden_state]


@pytest.mark.parametrize('model_type', TYPES)
def test_patches_are_taken_before_the_final_norm_and_the_view_after_it(
    model_type: str, folders: dict[str, Path]
) -> None:
    patch = PATCH[model_type]
    image = np.random.default_rng(0).integers(0, 256, (2 * patch, 3 * patch, 3), np.uint8)
    teacher = load_teacher(str(folders[model_type]), input_height=2 * patch, device='cpu')
    found = teacher([image])
    *_, before, after = states(folders[model_type], image)
    assert (teacher.stride, teacher.channels, teacher.view_channels) == (patch, 32, 32)
    assert found.patches.shape == (1, 2, 3, 32)
    own = before[:, PREFIX[model_type] :]
    torch.testing.assert_close(found.patches.flatten(1, 2), own, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.view, after[:, 0], rtol=1e-4, atol=1e-5)
    # A norm was there to be left out.
    assert (after[:, PREFIX[model_type] :] - own).abs().mean() > 0.1


@pytest.mark.parametrize('model_type', TYPES)
@pytest.mark.parametrize('place', [(0, 0), (0, 4), (2, 1)])
def test_a_bright_patch_is_found_where_it_is(
    model_type: str, place: tuple[int, int], folders: dict[str, Path]
) -> None:
    patch = PATCH[model_type]
    dark = np.zeros((3 * patch, 5 * patch, 3), np.uint8)
    spot = dark.copy()
    row, column = place
    spot[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch] = 255
    teacher = load_teacher(str(folders[model_type]), input_height=3 * patch, device='cpu')
    found = teacher([dark, spot]).patches
    change = (found[1] - found[0]).norm(dim=-1)
    assert divmod(int(change.argmax()), 5) == place


def test_images_are_scaled_to_whole_patches(folders: dict[str, Path]) -> None:
    teacher = load_teacher(str(folders['dinov2']), input_height=40, device='cpu')
    assert teacher.input_size(640, 480) == (56, 42)
    assert teacher([np.zeros((480, 640, 3), np.uint8)]).patches.shape == (1, 3, 4, 32)


@pytest.mark.parametrize('model_type', TYPES)
def test_the_same_weights_are_known_again(
    model_type: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = copied(folders[model_type], tmp_path)
    teacher, again = (
        load_teacher(str(folder), input_height=28, device='cpu')
        for folder in (folders[model_type], other)
    )
    assert again.weights_sha256 == teacher.weights_sha256
    weights = load_file(other / 'model.safetensors')
    name = next(name for name in sorted(weights) if 'layer.1.' in name)
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, other / 'model.safetensors', {'format': 'pt'})
    changed = load_teacher(str(other), input_height=28, device='cpu')
    assert changed.weights_sha256 != teacher.weights_sha256


@pytest.mark.parametrize('model_type', TYPES)
def test_nothing_of_a_teacher_learns(model_type: str, folders: dict[str, Path]) -> None:
    teacher = load_teacher(str(folders[model_type]), input_height=28, device='cpu')
    assert not any(weight.requires_grad for weight in teacher._network.parameters())
    found = teacher([np.zeros((28, 28, 3), np.uint8)])
    assert not found.patches.requires_grad and not found.view.requires_grad
    # A loss may keep them for its own gradient.
    student = torch.ones(32, requires_grad=True)
    (student * found.patches).sum().backward()
    assert torch.equal(student.grad, found.patches.sum((0, 1, 2)))


@pytest.mark.parametrize('name', ['/no/such/teacher', './teacher', 'runs/teachers/dinov2'])
def test_a_folder_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(BadTeacher, match=f'no teacher folder {name}.*hf download'):
        load_teacher(name, input_height=28, device='cpu')


def test_a_hub_name_without_a_network_says_how_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    with pytest.raises(BadTeacher, match=r'facebook/dinov2-none cannot be loaded.*hf download'):
        load_teacher('facebook/dinov2-none', input_height=28, device='cpu')


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadTeacher, match=r'cannot be loaded.*config\.json and model\.safetensors'):
        load_teacher(str(tmp_path), input_height=28, device='cpu')


def test_another_type_is_refused_with_those_supported(tmp_path: Path) -> None:
    ViTModel(ViTConfig(intermediate_size=64, **SIZES)).save_pretrained(tmp_path)
    with pytest.raises(BadTeacher, match=r'type vit, supported are dinov2, .*, dinov3_vit'):
        load_teacher(str(tmp_path), input_height=28, device='cpu')


def test_pickled_weights_are_left_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders['dinov2'], tmp_path)
    torch.save(load_file(folder / 'model.safetensors'), folder / 'pytorch_model.bin')
    (folder / 'model.safetensors').unlink()
    with pytest.raises(BadTeacher, match=r'cannot be loaded.*model\.safetensors'):
        load_teacher(str(folder), input_height=28, device='cpu')


def test_code_of_a_checkpoint_is_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders['dinov2'], tmp_path)
    config = json.loads((folder / 'config.json').read_text())
    config['model_type'] = 'mine'
    config['auto_map'] = {'AutoConfig': 'mine.Mine', 'AutoModel': 'mine.Mine'}
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'mine.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    with pytest.raises(BadTeacher, match='cannot be loaded'):
        load_teacher(str(folder), input_height=28, device='cpu')
    assert not (tmp_path / 'ran').exists()


def test_missing_weights_are_not_drawn(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders['dinov2'], tmp_path)
    weights = load_file(folder / 'model.safetensors')
    gone = next(name for name in sorted(weights) if 'layer.1.' in name)
    del weights[gone]
    del weights['embeddings.mask_token']
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    with pytest.raises(BadTeacher, match=r'lacks 1 weights, the first is encoder\.layer\.1\.'):
        load_teacher(str(folder), input_height=28, device='cpu')


def test_cut_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders['dinov2'], tmp_path)
    whole = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadTeacher, match='cannot be loaded'):
        load_teacher(str(folder), input_height=28, device='cpu')
