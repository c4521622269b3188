# SPDX-License-Identifier: Apache-2.0
"""What the methods are worth, measured on recordings: every number with how it was made."""
