# SPDX-License-Identifier: Apache-2.0
"""What stands in a street, as textured triangles."""
