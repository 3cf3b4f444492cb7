"""Language models as the swarm uses them."""
