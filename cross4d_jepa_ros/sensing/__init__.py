# SPDX-License-Identifier: Apache-2.0
"""From messages to arrays: clouds, images, cameras, transforms, time. No ROS imports."""
