"""What tests share: small markets and runs, checks, servers on loopback, slow references."""
