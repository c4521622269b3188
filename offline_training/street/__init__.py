# SPDX-License-Identifier: Apache-2.0
"""A ray-traced town: what stands and moves in it, and the sensors that drive through it."""
