"""Losses as pure functions of tensors.

Half-precision tensors are computed in fp32, fp64 stays fp64. Rows that do not count (`IGNORE_INDEX`, a
mask) are taken out before anything is computed, so that no value in them reaches a loss or a gradient.
A mean over tokens divides by the tokens that count in this call, or by `num_items` where a step is
made of several micro-batches or processes: their losses then add up to the loss of the whole.
"""
