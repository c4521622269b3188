# SPDX-License-Identifier: Apache-2.0
"""What runs on the workstation. Imports cross4d_jepa_ros, never the reverse."""
