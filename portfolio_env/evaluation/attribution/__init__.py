"""Attribution: which assets and which styles a difference to the reference comes from."""
