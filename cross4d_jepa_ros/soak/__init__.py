# SPDX-License-Identifier: Apache-2.0
"""A bad day, replayed: seeded faults against the node in a process of its own, and a verdict."""
