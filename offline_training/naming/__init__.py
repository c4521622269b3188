# SPDX-License-Identifier: Apache-2.0
"""Class names without LiDAR labels: from labelled images, from a few clicks, from clusters."""
