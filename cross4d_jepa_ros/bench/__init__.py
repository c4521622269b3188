# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what a sweep costs, stage by stage, from message objects to message objects."""
