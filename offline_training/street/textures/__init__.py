# SPDX-License-Identifier: Apache-2.0
"""What surfaces look like: tiles of 256 x 256 texels, drawn anew for every town."""
