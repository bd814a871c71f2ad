"""A market and its encoder together: each bar is encoded once for all lanes that stand at it."""
