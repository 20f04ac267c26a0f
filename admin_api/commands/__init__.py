"""The consortium's sub-commands, one module per word after `zegel`. Heavy imports are inside the functions."""
