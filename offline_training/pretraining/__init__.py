# SPDX-License-Identifier: Apache-2.0
"""One training loop for all objectives, from an index of logs to a checkpoint."""
