"""The gateway: one aligned model behind caps that hold exactly and books that balance."""
