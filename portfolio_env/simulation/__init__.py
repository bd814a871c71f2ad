"""The simulator: costs, constraints, rewards, and the step that moves money. No RL API.

Imports nothing, so that a kernel can be imported without the simulator.
"""
