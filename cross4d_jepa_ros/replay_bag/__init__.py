# SPDX-License-Identifier: Apache-2.0
"""Recordings played onto topics: what goes where, who must listen, and when each is due."""
