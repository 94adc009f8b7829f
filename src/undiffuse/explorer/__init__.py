"""The SDE explorer: a page in which every picture shows the exact law and the simulated particles on the same axes."""
