# SPDX-License-Identifier: Apache-2.0
"""Says of a recording, or of what runs now, whether perception will work on it, and how."""
