"""Graph attention (GATv2): the layer, and the operator that it computes."""
