"""Tables of prices from anywhere, in the one long form that markets are made of."""
