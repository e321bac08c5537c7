"""The simulated front end as an IIO context: what laboratory software that knows ADAR1000 boards finds on a TCP port."""
