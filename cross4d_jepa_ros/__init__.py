# SPDX-License-Identifier: Apache-2.0
"""Live LiDAR and camera perception with a 4D encoder pretrained without labels."""

__version__ = '0.1.0'
