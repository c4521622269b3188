# SPDX-License-Identifier: Apache-2.0
"""Tokenizer, encoder, decoder, heads and the checkpoint that carries them."""
