"""What customers did, turned into the market that they are."""
