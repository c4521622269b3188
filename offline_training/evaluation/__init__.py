# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint is worth on recordings."""
