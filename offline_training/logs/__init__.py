# SPDX-License-Identifier: Apache-2.0
"""Recorded logs: one index of their sweeps, and random access to what it names."""
