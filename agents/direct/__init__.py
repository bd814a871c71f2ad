"""Direct learning: gradient ascent on net growth through a differentiable simulator."""
