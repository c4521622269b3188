# SPDX-License-Identifier: Apache-2.0
"""The ROS side of the node: parameters, subscriptions, message builders, transport."""
