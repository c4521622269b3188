# SPDX-License-Identifier: Apache-2.0
"""What runs on the workstation. Imports cross4d_jepa_ros, never the reverse."""

import cross4d_jepa_ros as _  # noqa: F401 - its settings must be there before PyTorch is
