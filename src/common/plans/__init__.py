"""Plans: steps that wait for one another, as people write them, and what is wrong with them."""
