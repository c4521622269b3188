# SPDX-License-Identifier: Apache-2.0
"""Frozen image networks whose features the encoder learns to predict."""
