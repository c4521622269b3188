# SPDX-License-Identifier: Apache-2.0
"""What an encoder is asked while it learns without labels: 3D-JEPA, CrossJEPA and Cross4D-JEPA."""
